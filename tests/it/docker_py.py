# Reads what Docker's API would have answered on standard input, makes docker-py's objects of it, and
# writes what their properties say. A key that docker-py reads and does not find ends it with a
# traceback.
import json
import sys

from docker.models.containers import Container
from docker.models.images import Image


class Images:
    """What docker-py asks its client for."""

    def __init__(self, known):
        self.known = known

    def get(self, name):
        return next(Image(attrs=attrs) for attrs in self.known if name in attrs["Id"])


class Client:
    def __init__(self, images):
        self.images = Images(images)


def container(attrs, client):
    one = Container(attrs=attrs, client=client)
    # Read by attach, logs, exec_run and run.
    attrs["Config"]["Tty"], attrs["HostConfig"]["LogConfig"]["Type"]
    attrs["NetworkSettings"]["Networks"], attrs["HostConfig"]["NetworkMode"]
    return {
        "id": one.id,
        "short_id": one.short_id,
        "name": one.name,
        "status": one.status,
        # Not in older versions.
        "health": getattr(
            one, "health", attrs.get("State", {}).get("Health", {}).get("Status", "unknown")
        ),
        "labels": one.labels,
        "ports": one.ports,
        "image": one.image.id if client.images.known else None,
        "text": repr(one),
    }


def image(attrs):
    one = Image(attrs=attrs)
    return {
        "id": one.id,
        "short_id": one.short_id,
        "tags": one.tags,
        "labels": one.labels,
        "text": repr(one),
    }


def execution(attrs):
    # As exec_run reads it.
    return {"exit_code": attrs["ExitCode"], "running": attrs["Running"], "pid": attrs["Pid"]}


given = json.load(sys.stdin)
client = Client(given["images"])
seen = [container(attrs, client) for attrs in given["containers"]]
seen += [image(attrs) for attrs in given["images"]]
seen += [execution(attrs) for attrs in given["execs"]]
json.dump(seen, sys.stdout)
