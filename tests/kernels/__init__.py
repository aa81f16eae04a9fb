# SPDX-License-Identifier: Apache-2.0
"""The programs on other kernels, in virtual machines: run.sh and what it runs there."""
