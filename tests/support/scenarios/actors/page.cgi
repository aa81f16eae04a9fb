#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A page of a CGI script, made by a shell and its tools as such pages are.
printf 'Content-Type: text/plain\r\n\r\n'
date +%F
uname -a | grep -c Linux
