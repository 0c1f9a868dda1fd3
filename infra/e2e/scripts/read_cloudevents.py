"""Reads a file of CloudEvents, one structured JSON document per line, with the CloudEvents SDK for Python, and prints what
the SDK understood: one JSON object per line. Anything that the SDK refuses ends the script with an error.

usage: read_cloudevents.py FILE
"""

import json
import sys
from datetime import timezone

from cloudevents.core.formats.json import JSONFormat

CORE = {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"}


def understood(event):
    attributes = event.get_attributes()
    return {
        "specversion": event.get_specversion(),
        "id": event.get_id(),
        "type": event.get_type(),
        "source": event.get_source(),
        "subject": event.get_subject(),
        "time": event.get_time().astimezone(timezone.utc).isoformat(timespec="microseconds"),
        "datacontenttype": event.get_datacontenttype(),
        "extensions": {name: event.get_extension(name) for name in attributes if name not in CORE},
        "data": event.get_data(),
    }


def main():
    read = JSONFormat().read
    with open(sys.argv[1], "rb") as file:
        for line in file:
            print(json.dumps(understood(read(None, line))))


if __name__ == "__main__":
    main()
