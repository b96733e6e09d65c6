"""Keys, sign-in links and browser sessions."""

from fastapi import APIRouter, Response

from clipwise.wire.fleet import ApiKey, NewApiKey, Session, SignIn, SignInLink
from clipwise.wire.jobs import Deleted
from clipwise.wire.listing import Page
from clipwise_api import sign_in
from clipwise_api.bodies import JsonRoute
from clipwise_api.documents import problems
from clipwise_api.services import Caller, IdempotencyKey, Services

router = APIRouter(prefix="/v1", tags=["access"], route_class=JsonRoute)


@router.post("/api_keys", status_code=201, responses=problems(409, 413, 415))
def create_api_key(
    new: NewApiKey,
    who: Caller,
    services: Services,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ApiKey:
    """Make a key. Its `secret` is in this answer only."""
    key, replayed = sign_in.create_key(services, who, new, idempotency_key)
    response.headers["Location"] = f"/v1/api_keys/{key.id}"
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return key


@router.get("/api_keys", responses=problems())
def list_api_keys(services: Services) -> Page[ApiKey]:
    """List the keys that work."""
    return Page(data=sign_in.keys_of(services))


@router.delete("/api_keys/{key_id}", responses=problems(404, 409))
def delete_api_key(key_id: str, services: Services) -> Deleted:
    """Revoke a key, and sign its browsers out. The last owner's key stays."""
    return sign_in.revoke_key(services, key_id)


@router.post("/sign_in_links", status_code=201, responses=problems())
def create_sign_in_link(who: Caller, services: Services) -> SignInLink:
    """Make a link that signs one browser in, once, within ten minutes."""
    return sign_in.link(services, who)


@router.post("/session", status_code=201, responses=problems(413, 415))
def create_session(given: SignIn, services: Services, response: Response) -> Session:
    """Sign a browser in with a link's token or with a key; the answer sets its cookie."""
    return sign_in.start_session(services, given, response)


@router.get("/session", responses=problems())
def get_session(who: Caller) -> Session:
    """Return who is signed in. `csrf_token` is empty for a request with a key."""
    return sign_in.session_of(who)


@router.delete("/session", responses=problems())
def delete_session(who: Caller, services: Services, response: Response) -> Deleted:
    """Sign the browser out."""
    return sign_in.end_session(services, who, response)
