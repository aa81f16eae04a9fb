# SPDX-License-Identifier: Apache-2.0
"""The one package of the stream apps that knows Faust and Kafka.

``app`` is the Faust app with its one thin agent, ``driver`` what is changed inside Faust, ``outputs`` the
producer, ``side_topics`` and ``read_back`` the consumers beside Faust's, ``worker`` what happens to a
message, ``runtime`` puts them together. Whatever decides is elsewhere and pure.
"""
