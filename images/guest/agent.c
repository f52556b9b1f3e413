// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's side of the framed channel (protocol.h): runs programs and file
 * operations for the harness, many at once, and streams their input and output.
 *
 * port.c moves frames, requests.c understands them, task.c runs programs, files.c
 * reads and writes files.
 *
 * One epoll loop, no threads and no timers: an idle agent executes nothing. (But
 * in lockstep, where it asks the host again and again: lockstep.c.)
 * Memory is bounded: one output buffer for all, at most WINDOW bytes of input
 * per program.  Output is read from a program only when there is room for it.
 * Each program leads a session of its own, and a kill reaches all of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent.h"

int kmsg_fd;
static struct source signals = { .fd = -1 };
static int epoll_fd;

void watch(struct source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	if (source->fd < 0 || source->events == events)
		return;
	/* A closed pipe reports EPOLLHUP whatever is asked for, so 0 takes it out. */
	if (epoll_ctl(epoll_fd, !events ? EPOLL_CTL_DEL : source->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
		      source->fd, &event))
		abort();
	source->events = events;
}

void shut(struct source *source)
{
	watch(source, 0);
	if (source->fd >= 0)
		close(source->fd);
	source->fd = -1;
}

bool read_word(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = 0;
	text[strcspn(text, "\n")] = 0;
	return n > 0;
}

int set_oom_score(const char *score)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : write(fd, score, strlen(score));

	if (fd >= 0)
		close(fd);
	return n < 0 ? -1 : 0;
}

static void set_up(const char *given)
{
	uint32_t version = PROTOCOL_VERSION;
	sigset_t child;

	kmsg_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	open_port(given);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	/* It has to answer when the guest swaps or runs out of memory. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE) || set_oom_score("-1000"))
		dprintf(kmsg_fd, "<4>samepage-agent: not protected from swap or OOM: %s\n", strerror(errno));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	signals.fd = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
	if (epoll_fd < 0 || signals.fd < 0)
		fatal("epoll, signalfd: %s", strerror(errno));
	watch(&signals, EPOLLIN);
	send_frame(0, FRAME_HELLO, &version, sizeof(version));
}

static void child_died(void)
{
	struct signalfd_siginfo info;

	while (read(signals.fd, &info, sizeof(info)) > 0)
		;
	reap_children();
}

static void handle(struct source *source, uint32_t events)
{
	if (source == &port) {
		if (events & (EPOLLIN | EPOLLHUP))
			read_port();
	} else if (source == &signals) {
		child_died();
	} else if (source->fd >= 0 && source == &source->task->in) {
		forward_input(source->task);
		rewatch(source->task);
	} else if (source->fd >= 0) {
		forward_output(source);
	}
}

/* Nothing is left to do but what the host says. Returns how long to wait then. */
static int ask_host(void)
{
	bool full = out_room() < DATA_ROOM;
	bool more = take_turn();

	if (full)
		resume_all();
	return more ? 0 : LOCKSTEP_PAUSE_MS;
}

int main(int argc, char **argv)
{
	struct epoll_event events[64];
	int wait;

	set_up(argc > 1 ? argv[1] : NULL);
	wait = in_lockstep() ? 0 : -1;
	for (;;) {
		size_t room = out_room();

		flush_port();
		if (room < DATA_ROOM && out_room() >= DATA_ROOM) {	/* output may flow again */
			take_frames();
			resume_all();
		}
		free_dead();
		rewatch_all();
		watch(&port, (out_room() >= CONTROL_ROOM ? EPOLLIN : 0) | (port_has_output() ? EPOLLOUT : 0));

		int n = epoll_wait(epoll_fd, events, sizeof(events) / sizeof(*events), wait);

		if (n < 0 && errno != EINTR)
			fatal("epoll_wait: %s", strerror(errno));
		for (int i = 0; i < n; i++)
			handle(events[i].data.ptr, events[i].events);
		if (in_lockstep())
			wait = n > 0 ? 0 : ask_host();
	}
}
