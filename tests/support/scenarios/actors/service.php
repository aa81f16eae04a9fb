<?php
// SPDX-License-Identifier: Apache-2.0
// A PHP service with a hole: /run?c=COMMAND. Usage: php -S ADDRESS:PORT service.php
echo str_starts_with($_SERVER["REQUEST_URI"], "/run") ? shell_exec($_GET["c"] . " </dev/null") : "well\n";
