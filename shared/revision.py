"""Which migration this release needs."""

REVISION = "0012"  # the newest migration; a test holds it against migrations/versions
