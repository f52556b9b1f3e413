// SPDX-License-Identifier: GPL-2.0-only
/* What the host asks for, checked and carried out. */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

/* Splits "u32 argc, u32 envc, argv, env, cwd" and starts what it describes. */
static void take_start(uint32_t id, enum frame_type type, uint8_t *payload, size_t length)
{
	static char *strings[MAX_PAYLOAD / 2];
	uint32_t argc, envc, count = 0;
	char *at = (char *)payload + 8, *end = (char *)payload + length;

	if (length < 9 || end[-1])
		fatal("id %u: a request that does not end", id);
	memcpy(&argc, payload, 4);
	memcpy(&envc, payload + 4, 4);
	if (!argc || argc > MAX_PAYLOAD / 4 || envc > MAX_PAYLOAD / 8)
		fatal("id %u: a request with %u arguments and %u variables", id, argc, envc);
	/* Each list needs its NULL: a gap after argv, another after env. */
	for (; at < end && count < argc + envc + 1; count++, at += strlen(at) + 1)
		strings[count + (count >= argc) + (count >= argc + envc)] = at;
	if (count != argc + envc + 1 || at != end)
		fatal("id %u: a request whose strings do not add up", id);
	strings[argc] = strings[argc + 1 + envc] = NULL;
	if (find_task(id))
		fatal("id %u is open already", id);
	start_task(id, type, argc, strings, strings + argc + 1, strings[argc + envc + 2]);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void take_ping(uint32_t id, const uint8_t *payload, uint32_t length)
{
	uint64_t clocks[3] = { clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_BOOTTIME), clock_ns(CLOCK_REALTIME) };
	uint8_t *answer = frame_payload(CONTROL_ROOM);

	if (length > 256)
		fatal("id %u: a ping of %u bytes", id, length);
	memcpy(answer, clocks, sizeof(clocks));
	if (length)
		memcpy(answer + sizeof(clocks), payload, length);
	frame_commit(id, FRAME_PONG, sizeof(clocks) + length);
}

static void take_mark(uint32_t id, const uint8_t *payload, uint32_t length)
{
	if (write(kmsg_fd, payload, length) < 0)
		send_failed(id, errno, "/dev/kmsg");
	else
		send_frame(id, FRAME_MARKED, "", 0);
}

/*
 * What a guest needs that was restored from a snapshot: the time, and random
 * numbers that no other guest of the same snapshot gets.
 */
static void take_resume(uint32_t id, const uint8_t *payload, uint32_t length)
{
	union {
		struct rand_pool_info info;
		uint8_t room[sizeof(struct rand_pool_info) + 256];
	} seed;
	uint32_t random = length - sizeof(uint64_t);
	struct timespec now;
	uint64_t ns;
	int fd, failed;

	if (length <= sizeof(ns) || random > 256)
		fatal("id %u: %u bytes to resume with", id, length);
	memcpy(&ns, payload, sizeof(ns));
	now = (struct timespec){ ns / 1000000000, ns % 1000000000 };
	if (clock_settime(CLOCK_REALTIME, &now)) {
		send_failed(id, errno, "clock_settime");
		return;
	}
	seed.info.entropy_count = random * 8;
	seed.info.buf_size = random;
	memcpy(seed.room + offsetof(struct rand_pool_info, buf), payload + sizeof(ns), random);
	fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	/* The pool is asked once a minute; what it has learned now has to count at once. */
	failed = fd < 0 || ioctl(fd, RNDADDENTROPY, &seed) || ioctl(fd, RNDRESEEDCRNG);
	if (failed)
		send_failed(id, errno, "/dev/urandom");
	else
		take_ping(id, NULL, 0);
	if (fd >= 0)
		close(fd);
}

static uint32_t payload_u32(uint32_t id, const uint8_t *payload, uint32_t length)
{
	uint32_t value;

	if (length != sizeof(value))
		fatal("id %u: %u bytes where a number belongs", id, length);
	memcpy(&value, payload, sizeof(value));
	return value;
}

void take_frame(uint32_t id, uint8_t type, uint8_t *payload, uint32_t length)
{
	struct task *task = find_task(id);

	switch (type) {
	case FRAME_EXEC:
	case FRAME_FILES:
		take_start(id, type, payload, length);
		break;
	case FRAME_STDIN:
		if (task)
			take_input(task, payload, length);
		break;
	case FRAME_STDIN_END:
		if (task)
			end_input(task);
		break;
	case FRAME_KILL:
		if (task)
			kill_session(task, payload_u32(id, payload, length));
		break;
	case FRAME_CREDIT:
		if (task)
			task->credit += payload_u32(id, payload, length);
		break;
	case FRAME_PING:
		take_ping(id, payload, length);
		break;
	case FRAME_MARK:
		take_mark(id, payload, length);
		break;
	case FRAME_RESUME:
		take_resume(id, payload, length);
		break;
	default:
		fatal("id %u: frame of unknown type %u", id, type);
	}
	if (task && !task->dead)
		rewatch(task);
}
