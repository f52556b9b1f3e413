// SPDX-License-Identifier: GPL-2.0-only
#include "io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

bool read_whole(int fd, void *data, size_t size)
{
	char *at = data;

	while (size) {
		ssize_t got = read(fd, at, size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		at += got;
		size -= (size_t)got;
	}
	return true;
}

bool write_whole(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size) {
		ssize_t put = write(fd, at, size);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		at += put;
		size -= (size_t)put;
	}
	return true;
}

bool send_frame(int fd, const struct header *header, const void *payload)
{
	return write_whole(fd, header, sizeof(*header)) && write_whole(fd, payload, header->size);
}

bool send_answer(int fd, uint32_t worker, int error, const void *payload, size_t size)
{
	struct header header = { .size = (uint32_t)size, .worker = worker, .what = (uint32_t)error };

	return send_frame(fd, &header, payload);
}

union descriptor_control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

bool send_header_with_fd(int socket, const struct header *header, int fd)
{
	union descriptor_control control = { 0 };
	struct iovec part = { (void *)header, sizeof(*header) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		struct cmsghdr *item = CMSG_FIRSTHDR(&message);

		item->cmsg_level = SOL_SOCKET;
		item->cmsg_type = SCM_RIGHTS;
		item->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(item), &fd, sizeof(int));
	}
	/* A worker may have died; that shows as the end of its stream. */
	return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof(*header);
}

bool receive_header_with_fd(int socket, struct header *header, int *fd)
{
	union descriptor_control control;
	struct iovec part = { header, sizeof(*header) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1,
				  .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
	ssize_t got;

	*fd = -1;
	do
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
	while (got < 0 && errno == EINTR);
	if (got != sizeof(*header))
		return false;
	struct cmsghdr *item = CMSG_FIRSTHDR(&message);

	if (item && item->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(item), sizeof(int));
	return true;
}

void *unmergeable_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

_Noreturn void fail(const char *what)
{
	fprintf(stderr, "memwork: %s: %s\n", what, strerror(errno));
	exit(2);
}
