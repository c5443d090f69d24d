"""One replica as a process of its own: ``python -m tests.common.replica TITLE SETTINGS-AS-JSON``."""

import json
import sys

from services.common.server import run
from services.common.settings import ServiceSettings
from tests.common.serving import Fusion, fusion_service

if __name__ == "__main__":
    title, settings = sys.argv[1:]
    run(fusion_service(Fusion(title)), ServiceSettings(**json.loads(settings)))
