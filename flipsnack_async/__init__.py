"""
The Flipsnack flipbook API for asyncio and trio.

    async with Flipsnack(api_key, api_secret) as flipsnack:
        async with flipsnack.harvest() as rows:
            async for row in rows:
                print(row.collection_hash, row.stats or row.error)

Calls keep the vendor's limits, 5 a second and 60 a minute for each key, as
his server counts them, and use every call that is permitted.

Key and signature are shown to nobody but the vendor: no log, error, `repr`,
traceback with locals, pickle or file holds them, unless a server repeats
them in the data of an answer, or in its head to a tracer of httpx. A signature
never expires, so if a signed address leaks by another way, have the key
replaced. Not promised is that an upload without an answer happened once
(`UploadOutcomeUnknownError`), and that no call is refused while others use the
key without this library.
"""

from ._actions import Effect
from ._client import Flipsnack
from ._signing import Credentials
from .errors import (
    APIError,
    ArchiveError,
    AuthenticationError,
    ClientClosedError,
    CollectionUnavailableError,
    ConfigurationError,
    ConnectionFailedError,
    ConversionFailedError,
    ConversionTimeoutError,
    DownloadError,
    ExportFailedError,
    ExportTimeoutError,
    FileRejectedError,
    FlipsnackError,
    InvalidAnswerError,
    InvalidArgumentError,
    InvalidRequestError,
    MaintenanceError,
    NoAnswerError,
    QuotaWaitError,
    RateLimitError,
    StillProcessingError,
    UploadOutcomeUnknownError,
    UploadQuotaError,
)
from .exports import Exports, unpack_package
from .harvest import Harvest
from .models import (
    Collection,
    CollectionStats,
    Embed,
    ExportProgress,
    HarvestProgress,
    HarvestRow,
    Package,
    PackageRow,
    PageStats,
    RunSummary,
    SavedPackage,
    SeriesPlan,
    SeriesProgress,
    SeriesRow,
    UploadOutcome,
    UserStats,
)
from .quota import Permit, Quota, QuotaStatistics, Rate
from .transport import QuotaTransport, SigningTransport

__all__ = [
    "APIError",
    "ArchiveError",
    "AuthenticationError",
    "ClientClosedError",
    "Collection",
    "CollectionStats",
    "CollectionUnavailableError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConversionFailedError",
    "ConversionTimeoutError",
    "Credentials",
    "DownloadError",
    "Effect",
    "Embed",
    "ExportFailedError",
    "ExportProgress",
    "ExportTimeoutError",
    "Exports",
    "FileRejectedError",
    "Flipsnack",
    "FlipsnackError",
    "Harvest",
    "HarvestProgress",
    "HarvestRow",
    "InvalidAnswerError",
    "InvalidArgumentError",
    "InvalidRequestError",
    "MaintenanceError",
    "NoAnswerError",
    "Package",
    "PackageRow",
    "PageStats",
    "Permit",
    "Quota",
    "QuotaStatistics",
    "QuotaTransport",
    "QuotaWaitError",
    "Rate",
    "RateLimitError",
    "RunSummary",
    "SavedPackage",
    "SeriesPlan",
    "SeriesProgress",
    "SeriesRow",
    "SigningTransport",
    "StillProcessingError",
    "UploadOutcome",
    "UploadOutcomeUnknownError",
    "UploadQuotaError",
    "UserStats",
    "unpack_package",
]
