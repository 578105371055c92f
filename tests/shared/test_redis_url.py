import pytest

from shared.redis.client import open_pool
from shared.redis.url import check_redis_url

GOOD = [
    "redis://h",
    "redis://h/",
    "redis://h:6379/3",
    "redis://:p%40ss@h:6379/0?db=1&client_name=x&health_check_interval=30",
    "rediss://user:p@h:6380?ssl_cert_reqs=none&ssl_check_hostname=true",
    "redis://[::1]:6379/0",
    "unix:///run/redis.sock?db=2",
    "unix://user:p@/run/redis.sock",
]
BAD = [
    "http://h",
    "redis:/h",
    "h:6379",
    "redis://h:70000",
    "redis://h:0",
    "redis://h:abc",
    "redis://h:",
    "redis://h:6379/x",
    "redis://a:1,b:2",
    "redis://a,b",
    "redis://:p/canary@h:6379/0",
    "redis://:12/canary@h:6379/0",
    "redis://:p#canary@h",
    "redis://:p?canary=1@h",
    "redis://u:p:canary:1",
    "redis://[::1",
    "redis://h\n",
    "redis://h?db=x",
    "redis://h?nonsense=canary",
    "redis://h?ssl_cert_reqs=none",
    "redis://h?socket_timeout=100",
    "unix://",
]


@pytest.mark.parametrize("url", GOOD)
def test_what_redis_py_can_connect_by_is_taken(url: str) -> None:
    check_redis_url(url)
    open_pool(url).make_connection()  # type: ignore[no-untyped-call]  # connects to nothing yet


@pytest.mark.parametrize("url", BAD)
def test_what_it_cannot_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]") as refused:
        check_redis_url(url)
    assert "canary" not in str(refused.value)
