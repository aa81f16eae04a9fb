# SPDX-License-Identifier: Apache-2.0
"""What is wrong: detectors, their exclusions, and the alerts they make."""
