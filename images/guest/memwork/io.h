/* SPDX-License-Identifier: GPL-2.0-only */
/* Whole reads and writes, and frames over them. */
#ifndef MEMWORK_IO_H
#define MEMWORK_IO_H

#include <stdbool.h>
#include <stddef.h>

#include "protocol.h"

/* Read exactly `size` bytes: false at the end of the stream or on an error. */
bool read_whole(int fd, void *data, size_t size);
bool write_whole(int fd, const void *data, size_t size);

bool send_frame(int fd, const struct header *header, const void *payload);
bool send_answer(int fd, uint32_t worker, int error, const void *payload, size_t size);

/* A header, and with it a file descriptor (-1: none). */
bool send_header_with_fd(int socket, const struct header *header, int fd);
bool receive_header_with_fd(int socket, struct header *header, int *fd);

/* Memory that KSM never takes, whatever the process asks for: it merges no shared mapping. */
void *unmergeable_memory(size_t size);

_Noreturn void fail(const char *what);

#endif
