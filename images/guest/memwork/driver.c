// SPDX-License-Identifier: GPL-2.0-only
/*
 * The driver: passes requests on to workers and their answers back, and knows which of them live.
 *
 * All workers are its children, those that workers forked too (CLONE_PARENT), so it can tell how each ended. A worker's
 * end shows as the end of its socket, which the kernel closes after the process has given up its memory.
 */
#include "driver.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io.h"
#include "worker.h"

enum state {
	FREE,
	STARTING,	/* its greeting, or its parent's error, is still to come */
	READY,
	ENDING,		/* asked to exit */
	DEAD,		/* ended unasked; the host has still to hear of it */
};

struct slot {
	enum state state;
	int socket;
	pid_t pid;
	unsigned int owed;	/* answers to the host */
	int status;	/* of a DEAD one, as wait(2) gives it */
};

static struct slot slots[MAX_WORKERS];
static char transfer[1 << 16];

static void answer(uint32_t worker, int error, const void *payload, size_t size)
{
	if (!send_answer(STDOUT_FILENO, worker, error, payload, size))
		exit(1);	/* the host is gone; workers see our sockets close */
}

static void refuse(uint32_t worker, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void refuse(uint32_t worker, int error, const char *format, ...)
{
	char text[160];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	answer(worker, error, text, strlen(text));
}

/* Pass `size` bytes on; a receiver that fails is skipped, since the bytes must leave the stream all the same. */
static bool pass_on(int from, int to, size_t size)
{
	bool writing = true;

	while (size) {
		size_t part = size < sizeof(transfer) ? size : sizeof(transfer);

		if (!read_whole(from, transfer, part))
			return false;
		if (writing && to >= 0)
			writing = write_whole(to, transfer, part);
		size -= part;
	}
	return true;
}

static void say_how_it_ended(uint32_t id)
{
	struct slot *slot = &slots[id];
	int status = slot->status;

	if (WIFSIGNALED(status))
		refuse(id, ECHILD, "worker %u (pid %d) was killed by signal %d (%s)", id, slot->pid, WTERMSIG(status),
		       strsignal(WTERMSIG(status)));
	else
		refuse(id, ECHILD, "worker %u (pid %d) ended by itself with exit code %d", id, slot->pid,
		       WEXITSTATUS(status));
}

static void end_of_worker(uint32_t id)
{
	struct slot *slot = &slots[id];
	enum state state = slot->state;

	close(slot->socket);
	slot->socket = -1;
	if (state == STARTING && !slot->pid) {
		refuse(id, ECHILD, "worker %u never started: its parent died while forking", id);
		slot->state = FREE;
		return;
	}
	if (slot->pid)
		waitpid(slot->pid, &slot->status, 0);
	if (state == FREE)
		return;	/* its parent has already answered that fork failed */
	for (; slot->owed; slot->owed--)
		say_how_it_ended(id);
	slot->state = DEAD;
	if (state == ENDING) {
		answer(id, 0, &slot->status, sizeof(slot->status));
		slot->state = FREE;
	}
}

static void answer_from(uint32_t id)
{
	struct slot *slot = &slots[id];
	struct header header;

	if (!read_whole(slot->socket, &header, sizeof(header))) {
		end_of_worker(id);
		return;
	}
	if (slot->state == STARTING && header.what) {
		slot->state = FREE;
	} else if (slot->state == STARTING) {
		uint64_t pid;

		if (!read_whole(slot->socket, &pid, sizeof(pid)))
			return;	/* the end shows at the next poll */
		slot->pid = (pid_t)pid;
		slot->state = READY;
		answer(id, 0, &pid, sizeof(pid));
		return;
	} else if (slot->owed) {
		slot->owed--;
	}
	header.worker = id;
	if (!write_whole(STDOUT_FILENO, &header, sizeof(header)))
		exit(1);
	pass_on(slot->socket, STDOUT_FILENO, header.size);
}

/* Give a free slot one end of a socket pair; returns the other end, for the worker, or -1 after an error answer. */
static int open_slot(uint32_t id)
{
	int pair[2];

	if (id >= MAX_WORKERS || slots[id].state != FREE || slots[id].socket >= 0) {
		refuse(id, EEXIST, "there is no free worker %u (of %u)", id, MAX_WORKERS);
		return -1;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		refuse(id, errno, "socketpair: %s", strerror(errno));
		return -1;
	}
	slots[id] = (struct slot){ .state = STARTING, .socket = pair[0] };
	return pair[1];
}

static void forget_other_workers(void)
{
	for (uint32_t id = 0; id < MAX_WORKERS; id++)
		if (slots[id].socket >= 0)
			close(slots[id].socket);
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
}

static void spawn(uint32_t id)
{
	int socket = open_slot(id);

	if (socket < 0)
		return;
	pid_t pid = fork();

	if (pid == 0) {
		forget_other_workers();
		work(socket, id);
	}
	close(socket);
	if (pid > 0) {
		slots[id].pid = pid;
		return;
	}
	refuse(id, errno, "fork: %s", strerror(errno));
	slots[id].state = FREE;
}

static void let_fork(uint32_t parent, const struct header *request)
{
	int socket = open_slot(request->argument);

	if (socket < 0)
		return;
	send_header_with_fd(slots[parent].socket, request, socket);
	close(socket);
}

static bool request_for_worker(const struct header *request)
{
	uint32_t id = request->worker;
	struct slot *slot = id < MAX_WORKERS ? &slots[id] : NULL;

	if (slot && slot->state == READY) {
		if (request->what == OP_FORK) {
			let_fork(id, request);
			return pass_on(STDIN_FILENO, -1, request->size);
		}
		if (request->what == OP_EXIT)
			slot->state = ENDING;
		else
			slot->owed++;
		send_header_with_fd(slot->socket, request, -1);
		return pass_on(STDIN_FILENO, slot->socket, request->size);
	}
	if (!pass_on(STDIN_FILENO, -1, request->size))
		return false;
	if (!slot || slot->state == FREE) {
		refuse(id, ESRCH, "there is no worker %u", id);
	} else if (slot->state != DEAD) {
		refuse(id, EBUSY, "worker %u is about to begin or to end", id);
	} else if (request->what == OP_EXIT) {
		answer(id, 0, &slot->status, sizeof(slot->status));
		slot->state = FREE;
	} else {
		say_how_it_ended(id);
	}
	return true;
}

static bool handle_request(void)
{
	struct header request;

	if (!read_whole(STDIN_FILENO, &request, sizeof(request)))
		return false;
	if (request.size > MAX_PAYLOAD) {
		fprintf(stderr, "memwork: a request of %u bytes: the stream is out of step\n", request.size);
		exit(2);
	}
	if (request.worker != DRIVER)
		return request_for_worker(&request);
	if (!pass_on(STDIN_FILENO, -1, request.size))
		return false;
	if (request.what == OP_SPAWN)
		spawn(request.argument);
	else
		refuse(DRIVER, EINVAL, "the driver knows no request %u", request.what);
	return true;
}

static void end_all(void)
{
	for (uint32_t id = 0; id < MAX_WORKERS; id++)
		if (slots[id].socket >= 0)
			close(slots[id].socket);
	while (wait(NULL) > 0 || errno == EINTR)
		;
}

int drive(void)
{
	struct pollfd polled[MAX_WORKERS + 1];

	signal(SIGPIPE, SIG_IGN);
	for (uint32_t id = 0; id < MAX_WORKERS; id++)
		slots[id].socket = -1;
	polled[MAX_WORKERS] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
	for (;;) {
		for (uint32_t id = 0; id < MAX_WORKERS; id++)
			polled[id] = (struct pollfd){ .fd = slots[id].socket, .events = POLLIN };
		if (poll(polled, MAX_WORKERS + 1, -1) < 0) {
			if (errno == EINTR)
				continue;
			fail("poll");
		}
		for (uint32_t id = 0; id < MAX_WORKERS; id++)
			if (polled[id].revents)
				answer_from(id);
		if (polled[MAX_WORKERS].revents && !handle_request())
			break;
	}
	end_all();
	return 0;
}
