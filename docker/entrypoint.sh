#!/bin/sh
# The state of the machine first, on standard error: what the command prints on standard output stays its own.
if [ "${1:-}" != doctor ]; then
    nucpro doctor >&2 || echo "nucpro doctor found problems (above); the command is run all the same." >&2
fi
exec nucpro "$@"
