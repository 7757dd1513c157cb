"""Settings and a data directory go in, the settings that reach this installation's broker come out."""

from sluicegate.home import Home
from sluicegate.schemas.errors import Unavailable
from sluicegate.settings import Settings


def attach(settings: Settings, home: Home) -> tuple[Settings, bool]:
    """The settings pointed at the one-box stack that runs in `home`, else at the broker that they name; and whether it
    is such a one-box installation, which holds all keys and makes what is missing.

    Raises:
        Unavailable: a stack is starting here, or none runs and the settings name no broker.
    """
    here = settings.model_copy(update={"home": home.root})
    try:
        state = home.running()
    except Unavailable as error:
        if home.owner() is not None:
            raise
        if settings.bootstrap:
            return here, False
        raise Unavailable(f"{error}, or name a broker with `SLUICEGATE_BOOTSTRAP`") from None
    return here.attached(bootstrap=state.bootstrap, epoch=state.epoch, broker=state.broker), True
