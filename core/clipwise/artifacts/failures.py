"""What the artifact store's backend raises, in the words of `clipwise.errors`."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from clipwise.errors import ClipwiseError, NotFound, Unavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn whatever a backend raises while it does `what` into `NotFound` or `Unavailable`.

    Object stores raise errors of their own libraries, whose texts can hold addresses and keys of access:
    only the kind of such an error is passed on.
    """
    try:
        yield
    except ClipwiseError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"the artifact store cannot {what}: there is no such file") from error
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable(
                f"the artifact store cannot {what}: its disk is full or over quota; "
                "delete data sets or jobs, or give it more room, then try again"
            ) from error
        reason = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise Unavailable(
            f"the artifact store cannot {what} ({reason}); check CLIPWISE_ARTIFACTS_URL and its permissions"
        ) from error
    except Exception as error:
        raise Unavailable(
            f"the artifact store cannot {what} ({type(error).__name__}); "
            "check CLIPWISE_ARTIFACTS_URL, its credentials and its network"
        ) from error
