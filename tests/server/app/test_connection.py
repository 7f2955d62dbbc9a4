"""A client that takes nothing holds nothing for long."""

import time

from tests.support.servers import Sleeper, listening, scripted_engine, wait_until


def test_a_client_that_takes_nothing_is_cut_off_and_its_connection_ends() -> None:
    engine = scripted_engine(["Hello. " * 20])
    with listening(engine, send_timeout=0.3) as server:
        for is_streamed in (True, False):
            begin = time.monotonic()
            with Sleeper(server, is_streamed=is_streamed) as client:
                wait_until(lambda: bool(server.server_state.connections))
                wait_until(lambda: not server.server_state.connections)
                assert time.monotonic() - begin > 0.3
                assert not client.rest().endswith(b"0\r\n\r\n")
            wait_until(lambda: engine.stats().num_used_blocks == 0)


def test_a_client_that_takes_its_time_gets_everything() -> None:
    with listening(scripted_engine(["Hello. " * 20]), send_timeout=1) as server:
        with Sleeper(server, is_streamed=True) as client:
            assert client.rest(pause=0.005).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
