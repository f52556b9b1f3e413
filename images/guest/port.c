// SPDX-License-Identifier: GPL-2.0-only
/* The virtio-serial port, or what is in its place: frames cut from bytes, and bytes waiting to go out. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

struct source port = { .fd = -1 };
static bool port_is_given;	/* a test's socket, in place of the virtio port */

static uint8_t in_buf[HEADER_SIZE + MAX_PAYLOAD];
static size_t in_used;
static uint8_t out_buf[512 * 1024];
static size_t out_at, out_end;

/* Without udev the port is found by its name under /sys/class/virtio-ports. */
static int find_port(void)
{
	char path[300], name[64];
	struct dirent *entry;
	DIR *dir = opendir("/sys/class/virtio-ports");
	int found = -1;

	while (dir && found < 0 && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		if (!read_word(path, name, sizeof(name)) || strcmp(name, CHANNEL_NAME))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		found = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return found;
}

void open_port(const char *given)
{
	if (!given && open_lockstep())
		return;
	port_is_given = given;
	port.fd = given ? atoi(given) : find_port();
	if (port.fd < 0 || fcntl(port.fd, F_SETFD, FD_CLOEXEC) || fcntl(port.fd, F_SETFL, O_NONBLOCK))
		fatal("no virtio port named " CHANNEL_NAME);
}

size_t out_room(void)
{
	return sizeof(out_buf) - (out_end - out_at);
}

/* The place where a frame's payload goes; the caller has seen to the room. */
uint8_t *frame_payload(size_t room)
{
	if (sizeof(out_buf) - out_end < HEADER_SIZE + room) {
		memmove(out_buf, out_buf + out_at, out_end - out_at);
		out_end -= out_at;
		out_at = 0;
	}
	return out_buf + out_end + HEADER_SIZE;
}

void frame_commit(uint32_t id, enum frame_type type, uint32_t length)
{
	uint8_t *header = out_buf + out_end;

	memcpy(header, &length, 4);
	memcpy(header + 4, &id, 4);
	header[8] = type;
	out_end += HEADER_SIZE + length;
}

void send_frame(uint32_t id, enum frame_type type, const void *payload, uint32_t length)
{
	memcpy(frame_payload(length), payload, length);
	frame_commit(id, type, length);
}

void send_u32(uint32_t id, enum frame_type type, uint32_t value)
{
	send_frame(id, type, &value, sizeof(value));
}

void flush_port(void)
{
	while (out_at < out_end && port.fd >= 0) {
		ssize_t n = write(port.fd, out_buf + out_at, out_end - out_at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		out_at += n;
	}
	if (out_at == out_end)
		out_at = out_end = 0;
}

void fatal(const char *format, ...)
{
	char text[256];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	dprintf(kmsg_fd, "<3>samepage-agent: %s\n", text);
	if (out_room() >= CONTROL_ROOM && (port.fd >= 0 || in_lockstep())) {
		send_frame(0, FRAME_FATAL, text, length);
		if (in_lockstep())
			exchange(out_buf + out_at, out_end - out_at, in_buf, 0);
		flush_port();
	}
	exit(1);
}

void send_failed(uint32_t id, int32_t err, const char *what)
{
	uint8_t *payload = frame_payload(CONTROL_ROOM);
	int length = snprintf((char *)payload + 4, CONTROL_ROOM - HEADER_SIZE - 4, "%s: %s", what, strerror(err));

	memcpy(payload, &err, 4);
	frame_commit(id, FRAME_FAILED, 4 + length);
}

bool port_has_output(void)
{
	return out_at < out_end;
}

/* Carries out the whole frames in the buffer, as long as their answers have room. */
void take_frames(void)
{
	size_t at = 0;

	while (in_used - at >= HEADER_SIZE && out_room() >= CONTROL_ROOM) {
		uint32_t length, id;

		memcpy(&length, in_buf + at, 4);
		memcpy(&id, in_buf + at + 4, 4);
		if (length > MAX_PAYLOAD)
			fatal("a frame of %u bytes", length);
		if (in_used - at < HEADER_SIZE + length)
			break;
		take_frame(id, in_buf[at + 8], in_buf + at + HEADER_SIZE, length);
		at += HEADER_SIZE + length;
	}
	memmove(in_buf, in_buf + at, in_used - at);
	in_used -= at;
}

/* In lockstep: let the host have its turn. False when it has nothing for us. */
bool take_turn(void)
{
	size_t n = exchange(out_buf + out_at, out_end - out_at, in_buf + in_used, sizeof(in_buf) - in_used);

	out_at = out_end = 0;
	in_used += n;
	take_frames();
	return n;
}

void read_port(void)
{
	ssize_t n = read(port.fd, in_buf + in_used, sizeof(in_buf) - in_used);

	if (n > 0)
		in_used += n;
	else if (n == 0 && port_is_given)
		exit(0);
	else if (n == 0)		/* nobody on the host's side: not a state we are run in */
		usleep(10000);
	else if (errno != EAGAIN && errno != EINTR)
		fatal("port: %s", strerror(errno));
	take_frames();
}
