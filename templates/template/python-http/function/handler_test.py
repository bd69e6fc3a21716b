import types
import unittest

from function.handler import handle


def event(path="/", body=b""):
    return types.SimpleNamespace(method="POST", path=path, query="", headers={}, body=body)


class HandleTest(unittest.TestCase):
    def test_counts(self):
        response = handle(event(body=b"abc"), None)
        self.assertEqual(response["statusCode"], 200)
        self.assertEqual(response["body"], "Hello from Python! You sent 3 bytes.\n")

    def test_knows_one_path(self):
        self.assertEqual(handle(event(path="/x"), None)["statusCode"], 404)


if __name__ == "__main__":
    unittest.main()
