"""A model that extracts facts, played by a small server that speaks OpenAI's and Ollama's API; and the fixture that starts it."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeModel:
    """Answers every prompt with `answer`: a text, or a function of the prompt; `status` and `delay_s` make it fail."""

    def __init__(self):
        self.answer = '{"facts": []}'
        self.status = 200
        self.delay_s = 0
        self.asked = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.asked.append({"path": self.path, "headers": dict(self.headers), "body": body})
                time.sleep(fake.delay_s)
                prompt = "\n".join(message["content"] for message in body["messages"])
                text = fake.answer(prompt) if callable(fake.answer) else fake.answer
                message = {"role": "assistant", "content": text}
                answer = {"message": message, "done": True} if self.path == "/api/chat" else {"choices": [{"message": message}]}
                if fake.status != 200:
                    answer = {"error": {"message": "out of order"}}
                payload = json.dumps(answer).encode()
                try:
                    self.send_response(fake.status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except BrokenPipeError:
                    pass

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def facts(self, *facts):
        self.answer = json.dumps({"facts": [{"text": fact} if isinstance(fact, str) else fact for fact in facts]})

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
