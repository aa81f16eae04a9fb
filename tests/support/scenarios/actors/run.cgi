#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A CGI script with a hole: run?c=COMMAND.
printf 'Content-Type: text/plain\r\n\r\n'
command=$(busybox httpd -d "${QUERY_STRING#c=}")
sh -c "$command" </dev/null
