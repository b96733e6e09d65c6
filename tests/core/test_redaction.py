"""What is taken out of a line, and what stays."""

import time

import pytest

from clipwise.redaction import LONGEST_KEY_BLOCK, MASK, LineRedactor, redacted
from clipwise.store.keys import new_secret

SECRETS = {
    "postgresql+psycopg://clipwise:S3cr3t@db:5432/clipwise": "S3cr3t",
    "connection to redis://:S3cr3t@cache:6379/0 refused": "S3cr3t",
    "amqp://guest:S3/cr3t@rabbit//": "S3/cr3t",
    "redis://user:p@S3cr3t@cache": "p@S3cr3t",
    "https://S3cr3tTokenOfAGitServer@git.example.org/x.git": "S3cr3tTokenOfAGitServer",
    "postgresql://db/clipwise?user=x&password=S3cr3t&sslmode=require": "S3cr3t",
    "https://bucket.s3.amazonaws.com/k?X-Amz-Signature=0123456789abcdef&x=1": "0123456789abcdef",
    "https://x.blob.core.windows.net/c?sv=2022&sig=S3cr3t%3D": "S3cr3t",
    "Authorization: Bearer S3cr3tS3cr3t": "S3cr3t",
    "authorization: Basic dXNlcjpwYXNz": "dXNlcjpwYXNz",
    "headers={'Authorization': 'Bearer abc.def'}": "abc.def",
    "[(b'host', b'x'), (b'authorization', b'Bearer S3cr3tS3cr3t')]": "S3cr3tS3cr3t",
    "the header was bearer S3cr3tS3cr3t": "S3cr3t",
    "Cookie: clipwise_session_8470=S3cr3t; theme=dark": "S3cr3t",
    "got clipwise_session_8470=S3cr3t;": "S3cr3t",
    "X-CSRF-Token: S3cr3tS3cr3t": "S3cr3t",
    "open http://127.0.0.1:8470/#sign-in=S3cr3t_S3cr3t": "S3cr3t",
    "AKIAIOSFODNN7EXAMPLE may not list": "IOSFODNN7EXAMPLE",
    "aws_secret_access_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": "wJalrXUtnFEMI",
    "AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": "wJalrXUtnFEMI",
    "password=hunter2": "hunter2",
    "PGPASSWORD=12345 psql": "12345",
    "CLIPWISE_API_KEY=0123abcd": "0123abcd",
    "passwd = hunter2": "hunter2",
    "db-password: hunter2": "hunter2",
    'password: "with a space"': "with a space",
    '{"api_key": "S3cr3t", "x": 1}': "S3cr3t",
    '"{\\"client_secret\\": \\"S3cr3t\\"}"': "S3cr3t",
    "token: S3cr3tS3cr3t": "S3cr3t",
    "HF_TOKEN=abcdefgh": "abcdefgh",
    "secret => S3cr3t": "S3cr3t",
    'password="cut off in the midd': "cut",
    "user=x;PWD=S3cr3t;": "S3cr3t",
    "null value in column x\nDETAIL:  Failing row contains (S3cr3t, null).\n": "S3cr3t",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz is not valid": "AbCdEfGh",
    "remote: ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789": "AbCdEfGh",
    "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl": "hbGciOi",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\ndef=\n-----END RSA PRIVATE KEY-----": "MIIEabc",
    "-----BEGIN PRIVATE KEY-----\nMIIEabc and nothing behind": "MIIEabc",
}

ORDINARY = """
loss=0.3
step 120/300: loss=0.3120 accuracy=0.91 tokens/s=1300
num_tokens: 128, max_tokens=512, token=15, token: 0.25, per token: 3e-4
tokenizer: bert-base-uncased
pad_token=[PAD] eos_token=</s> unk_token: <unk>
attempt 1 of job 'job_01' (token 3) no longer owns it; nothing was written
Attempt(job_id='job_01', number=1, token=7)
/var/lib/clipwise/artifacts/jobs/job_01/model.safetensors
GET http://127.0.0.1:8470/v1/jobs?email=someone@example.org
see https://example.org/docs:latest and mail a.b@example.org
git clone ssh://git@github.com/clipwise/clipwise.git
s3://bucket/prefix/file:1@2
PWD=/home/someone
Traceback (most recent call last):
  File "/opt/x/secrets.py", line 12, in token_urlsafe
    token = secrets.token_urlsafe(32)
    password = getpass.getpass()
    secret = os.environ["SECRET"]
    release(session, token=attempt.token, api_key=None)
    def sign(self, token: str, key: bytes, password: str | None) -> None:
KeyError: 'password'
TypeError: unexpected keyword argument 'token'
a basic training of the bearer of news, Bearer authentication is needed
the key of the dictionary is: alpha
sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
monkey=banana keys: 3 keyboard: yes
the cookie was eaten
cw_short
""".strip().splitlines()


@pytest.mark.parametrize("text", SECRETS, ids=range(len(SECRETS)))
def test_a_secret_is_replaced(text: str) -> None:
    assert SECRETS[text] not in redacted(text)
    assert MASK in redacted(text)


@pytest.mark.parametrize("line", ORDINARY, ids=range(len(ORDINARY)))
def test_an_ordinary_line_stays(line: str) -> None:
    assert redacted(line) == line


@pytest.mark.parametrize("text", SECRETS, ids=range(len(SECRETS)))
def test_a_replaced_text_is_not_replaced_again(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


def test_the_keys_that_clipwise_makes_are_found_and_told_apart_from_the_rest() -> None:
    for _ in range(200):
        secret = new_secret()
        assert redacted(f"sent {secret}, refused") == f"sent cw_{MASK}, refused"


def test_what_is_around_a_secret_stays() -> None:
    text = "cannot reach postgresql+psycopg://clipwise:S3cr3t@db:5432/x: timeout (password=x1, retries=3)"
    assert redacted(text) == (
        f"cannot reach postgresql+psycopg://clipwise:{MASK}@db:5432/x: timeout (password={MASK}, retries=3)"
    )


def test_a_private_key_is_replaced_line_by_line() -> None:
    key = [
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "b3BlbnNzaC1r",
        "ZXktdjEA",
        "-----END OPENSSH PRIVATE KEY-----",
    ]
    redactor = LineRedactor()
    found = [redactor.redacted(line) for line in ["before", *key, "loss=0.3"]]
    assert found[0] == "before"
    assert found[-1] == "loss=0.3"
    assert not any("b3Blbn" in line or "ZXktdj" in line for line in found)


def test_a_private_key_without_an_end_does_not_silence_the_log_for_ever() -> None:
    redactor = LineRedactor()
    redactor.redacted("-----BEGIN PRIVATE KEY-----")
    for _ in range(LONGEST_KEY_BLOCK):
        assert redactor.redacted("MIIE") == MASK
    assert redactor.redacted("loss=0.3") == "loss=0.3"


@pytest.mark.parametrize(
    "part",
    ["://a:", "password=", 'token: "', "a.b.", "bearer ", "authorization: ", "eyJabcdefgh.", "--", "cw_"],
)
def test_the_time_grows_with_the_length_alone(part: str) -> None:
    def seconds(size: int) -> float:
        text = part * (size // len(part))
        begun = time.process_time()
        redacted(text)
        return time.process_time() - begun

    # Quadratic, the large one would take 256 times as long; a limit of the test's run would end it.
    assert seconds(512 * 1024) < 0.5 + 64 * seconds(32 * 1024)
