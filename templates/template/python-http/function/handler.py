def handle(event, context):
    """The function. An exception is logged, and the response is status 500."""
    if event.path not in ("", "/"):
        return {"statusCode": 404, "body": f"nothing is at {event.path}\n"}
    return {
        "statusCode": 200,
        "headers": {"X-Body-Size": len(event.body)},
        "body": f"Hello from Python! You sent {len(event.body)} bytes.\n",
    }
