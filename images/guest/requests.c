// SPDX-License-Identifier: GPL-2.0-only
/* What the host asks for, checked and carried out. */
#include <errno.h>
#include <string.h>
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
	default:
		fatal("id %u: frame of unknown type %u", id, type);
	}
	if (task && !task->dead)
		rewatch(task);
}
