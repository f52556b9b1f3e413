// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's side of the framed channel (protocol.h): runs programs and file
 * operations for the harness, many at once, and streams their input and output.
 *
 * One epoll loop, no threads and no timers: an idle agent executes nothing.
 * Memory is bounded: one output buffer for all, at most WINDOW bytes of input
 * per program.  Output is read from a program only when there is room for it.
 * Each program leads a session of its own, and a kill reaches all of it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "protocol.h"

#define CONTROL_ROOM	1024	/* room that any frame without stream data fits in */
#define DATA_ROOM	(HEADER_SIZE + MAX_DATA + CONTROL_ROOM)
#define MAX_FILES	16384	/* three pipes for each of thousands of programs */

struct task;

/* What epoll hands back: a file of ours, and the program it belongs to. */
struct source {
	int fd;			/* -1 once closed */
	uint32_t events;	/* what epoll watches it for; 0: not registered */
	struct task *task;	/* NULL for the port and the signals */
	enum frame_type type;	/* of the data that it carries */
	long left;		/* bytes still to be read once the program is dead; -1: to the end */
};

struct task {
	uint32_t id;
	pid_t pid;
	bool reaped, dead;	/* dead: finished, to be freed after this round */
	int32_t code;
	uint32_t credit;	/* bytes of output that the host will take */
	struct source in, out, err;
	uint8_t *input;		/* WINDOW bytes, while any wait for the program */
	size_t input_at, input_end;
	bool input_ends;
	uint32_t consumed;	/* input credit not yet returned */
	struct task *next;
};

static struct source port = { .fd = -1 }, signals = { .fd = -1 };
static struct task *tasks;
static int epoll_fd, kmsg_fd;

static uint8_t in_buf[HEADER_SIZE + MAX_PAYLOAD];
static size_t in_used;
static uint8_t out_buf[512 * 1024];
static size_t out_at, out_end;

static void watch(struct source *source, uint32_t events)
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

static void shut(struct source *source)
{
	watch(source, 0);
	if (source->fd >= 0)
		close(source->fd);
	source->fd = -1;
}

/* ---- frames to the host ---- */

static size_t out_room(void)
{
	return sizeof(out_buf) - (out_end - out_at);
}

/* The place where a frame's payload goes; the caller has seen to the room. */
static uint8_t *frame_payload(size_t room)
{
	if (sizeof(out_buf) - out_end < HEADER_SIZE + room) {
		memmove(out_buf, out_buf + out_at, out_end - out_at);
		out_end -= out_at;
		out_at = 0;
	}
	return out_buf + out_end + HEADER_SIZE;
}

static void frame_commit(uint32_t id, enum frame_type type, uint32_t length)
{
	uint8_t *header = out_buf + out_end;

	memcpy(header, &length, 4);
	memcpy(header + 4, &id, 4);
	header[8] = type;
	out_end += HEADER_SIZE + length;
}

static void send_frame(uint32_t id, enum frame_type type, const void *payload, uint32_t length)
{
	memcpy(frame_payload(length), payload, length);
	frame_commit(id, type, length);
}

static void send_u32(uint32_t id, enum frame_type type, uint32_t value)
{
	send_frame(id, type, &value, sizeof(value));
}

static void flush_port(void)
{
	while (out_at < out_end) {
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

__attribute__((format(printf, 1, 2), noreturn))
static void fatal(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	int length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	dprintf(kmsg_fd, "<3>samepage-agent: %s\n", text);
	if (port.fd >= 0 && out_room() >= CONTROL_ROOM) {
		send_frame(0, FRAME_FATAL, text, length);
		flush_port();
	}
	exit(1);
}

static void send_failed(uint32_t id, int32_t err, const char *what)
{
	uint8_t *payload = frame_payload(CONTROL_ROOM);
	int length = snprintf((char *)payload + 4, CONTROL_ROOM - HEADER_SIZE - 4, "%s: %s", what, strerror(err));

	memcpy(payload, &err, 4);
	frame_commit(id, FRAME_FAILED, 4 + length);
}

/* ---- programs ---- */

static struct task *find_task(uint32_t id)
{
	for (struct task *task = tasks; task; task = task->next)
		if (task->id == id && !task->dead)
			return task;
	return NULL;
}

/* Watches what can make progress now; called whenever that may have changed. */
static void rewatch(struct task *task)
{
	bool room = task->credit && out_room() >= DATA_ROOM;

	watch(&task->out, room ? EPOLLIN : 0);
	watch(&task->err, room ? EPOLLIN : 0);
	watch(&task->in, task->input_at < task->input_end ? EPOLLOUT : 0);
}

static void finish_if_done(struct task *task)
{
	if (task->dead || !task->reaped || task->out.fd >= 0 || task->err.fd >= 0 || out_room() < CONTROL_ROOM)
		return;
	shut(&task->in);
	free(task->input);
	task->input = NULL;
	task->dead = true;
	send_frame(task->id, FRAME_EXIT, &task->code, sizeof(task->code));
}

static void free_dead(void)
{
	for (struct task **at = &tasks; *at;) {
		struct task *task = *at;

		if (task->dead) {
			*at = task->next;
			free(task);
		} else {
			at = &task->next;
		}
	}
}

static void forward_output(struct source *source)
{
	struct task *task = source->task;
	size_t want = MAX_DATA;

	if (!task->credit || out_room() < DATA_ROOM)
		return;
	if (want > task->credit)
		want = task->credit;
	if (source->left >= 0 && want > (size_t)source->left)
		want = source->left;

	ssize_t n = want ? read(source->fd, frame_payload(want), want) : 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		frame_commit(task->id, source->type, n);
		task->credit -= n;
		if (source->left > 0)
			source->left -= n;
	}
	if (n <= 0 || source->left == 0)
		shut(source);
	finish_if_done(task);
}

static void return_credit(struct task *task, bool all)
{
	if (out_room() < CONTROL_ROOM)
		return;
	if (task->consumed >= WINDOW / 4 || (all && task->consumed)) {
		send_u32(task->id, FRAME_STDIN_CREDIT, task->consumed);
		task->consumed = 0;
	}
}

/* Passes waiting input on to the program; a program that reads no more loses it. */
static void forward_input(struct task *task)
{
	while (task->input_at < task->input_end) {
		size_t left = task->input_end - task->input_at;
		ssize_t n = task->in.fd < 0 ? (ssize_t)left : write(task->in.fd, task->input + task->input_at, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			shut(&task->in);
			continue;
		}
		task->input_at += n;
		task->consumed += n;
	}
	if (task->input_at == task->input_end) {
		task->input_at = task->input_end = 0;
		free(task->input);
		task->input = NULL;
		if (task->input_ends)
			shut(&task->in);
	}
	return_credit(task, !task->input);
}

static void take_input(struct task *task, const uint8_t *data, size_t size)
{
	if (task->input_at) {
		memmove(task->input, task->input + task->input_at, task->input_end - task->input_at);
		task->input_end -= task->input_at;
		task->input_at = 0;
	}
	if (task->input_ends || task->input_end + size > WINDOW)
		fatal("id %u: input beyond its %s", task->id, task->input_ends ? "end" : "window");
	if (!task->input && !(task->input = malloc(WINDOW)))
		fatal("id %u: no memory for input", task->id);
	memcpy(task->input + task->input_end, data, size);
	task->input_end += size;
	forward_input(task);
}

/* Every process of the session, which outlives its leader's process group. */
static void kill_session(struct task *task, int sig)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && getsid(pid) == task->pid)
			kill(pid, sig);
	}
	if (proc)
		closedir(proc);
	if (!task->reaped)
		kill(task->pid, sig);
}

/*
 * A dead program's pipes may be held open by a child it left behind: what they
 * hold now is still its output, what comes later is not.
 */
static void reap(pid_t pid, int status)
{
	for (struct task *task = tasks; task; task = task->next) {
		if (task->pid != pid || task->reaped)
			continue;
		task->reaped = true;
		task->code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
		for (struct source *source = &task->out;; source = &task->err) {
			int held = 0;

			if (source->fd >= 0 && ioctl(source->fd, FIONREAD, &held) == 0)
				source->left = held;
			if (source->left == 0)
				shut(source);
			if (source == &task->err)
				break;
		}
		finish_if_done(task);
		return;
	}
}

static void child_died(void)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(signals.fd, &info, sizeof(info)) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		reap(pid, status);
}

/* In the child: a session of its own, default signals, and only its three files. */
static int enter_child(int in, int out, int err)
{
	static const struct rlimit files = { 1024, 524288 };
	sigset_t none;
	int fd;

	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	setrlimit(RLIMIT_NOFILE, &files);
	/* The agent is exempt from the OOM killer, what it starts is not. */
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "0", 1) < 0)
			return -1;
		close(fd);
	}
	return dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 ? -1 : 0;
}

static pid_t start_files(int argc, char **argv, const int fds[6])
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (enter_child(fds[0], fds[3], fds[5]))
		_exit(errno);
	close_range(3, ~0U, 0);
	_exit(files_main(argc, argv));
}

/* vfork: the parent's copy of errno tells whether the program was started. */
static pid_t start_program(char **argv, char **env, const char *cwd, const int fds[6], volatile int *err)
{
	*err = 0;

	pid_t pid = vfork();

	if (pid)
		return pid;
	if (enter_child(fds[0], fds[3], fds[5]) == 0 && (!*cwd || chdir(cwd) == 0))
		execvpe(argv[0], argv, env);
	*err = errno;
	_exit(127);
}

static bool open_pipes(int fds[6])
{
	for (int i = 0; i < 6; i++)
		fds[i] = -1;
	for (int i = 0; i < 6; i += 2)
		if (pipe2(fds + i, O_CLOEXEC))
			return false;
	return fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0 && fcntl(fds[2], F_SETFL, O_NONBLOCK) == 0 &&
	       fcntl(fds[4], F_SETFL, O_NONBLOCK) == 0;
}

static void start_task(uint32_t id, enum frame_type type, int argc, char **argv, char **env, const char *cwd)
{
	struct task *task = calloc(1, sizeof(*task));
	volatile int err = ENOMEM;
	pid_t pid = -1;
	int fds[6];

	if (task && open_pipes(fds)) {
		if (type == FRAME_FILES)
			pid = start_files(argc, argv, fds);
		else
			pid = start_program(argv, env, cwd, fds, &err);
		if (pid < 0)
			err = errno;
		else if (type == FRAME_FILES)
			err = 0;
	} else if (task) {
		err = errno;
	}
	if (task)
		for (int i = 0; i < 6; i++)
			if (fds[i] >= 0 && (err || i == 0 || i == 3 || i == 5))
				close(fds[i]);
	if (err) {
		if (pid > 0)
			waitpid(pid, NULL, 0);
		free(task);
		send_failed(id, err, argv[0]);
		return;
	}
	task->id = id;
	task->pid = pid;
	task->credit = WINDOW;
	task->in = (struct source){ fds[1], 0, task, FRAME_STDIN, -1 };
	task->out = (struct source){ fds[2], 0, task, FRAME_STDOUT, -1 };
	task->err = (struct source){ fds[4], 0, task, FRAME_STDERR, -1 };
	task->next = tasks;
	tasks = task;
	rewatch(task);
}

/* ---- frames from the host ---- */

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

static void take_frame(uint32_t id, uint8_t type, uint8_t *payload, uint32_t length)
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
		if (task) {
			task->input_ends = true;
			forward_input(task);
		}
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

/* Carries out the whole frames in the buffer, as long as their answers have room. */
static void take_frames(void)
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

static void read_port(void)
{
	ssize_t n = read(port.fd, in_buf + in_used, sizeof(in_buf) - in_used);

	if (n > 0)
		in_used += n;
	else if (n == 0)		/* nobody on the host's side: not a state we are run in */
		usleep(10000);
	else if (errno != EAGAIN && errno != EINTR)
		fatal("port: %s", strerror(errno));
	take_frames();
}

/* ---- start and loop ---- */

/* Without udev the port is found by its name under /sys/class/virtio-ports. */
static int open_port(void)
{
	char path[300], name[64];
	struct dirent *entry;
	DIR *dir = opendir("/sys/class/virtio-ports");
	int found = -1;

	while (dir && found < 0 && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);

		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, name, sizeof(name) - 1);

		if (fd >= 0)
			close(fd);
		if (n <= 0)
			continue;
		name[n] = 0;
		name[strcspn(name, "\n")] = 0;
		if (strcmp(name, CHANNEL_NAME))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		found = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return found;
}

static void set_up(void)
{
	struct rlimit files = { MAX_FILES, MAX_FILES };
	uint32_t version = PROTOCOL_VERSION;
	sigset_t child;

	kmsg_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	port.fd = open_port();
	if (port.fd < 0)
		fatal("no virtio port named " CHANNEL_NAME);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_NOFILE, &files);
	/* It has to answer when the guest swaps or runs out of memory. */
	mlockall(MCL_CURRENT | MCL_FUTURE);

	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "-1000", 5) < 0)
		fatal("oom_score_adj: %s", strerror(errno));
	close(fd);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	signals.fd = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
	if (epoll_fd < 0 || signals.fd < 0)
		fatal("epoll, signalfd: %s", strerror(errno));
	watch(&signals, EPOLLIN);
	send_frame(0, FRAME_HELLO, &version, sizeof(version));
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

int main(void)
{
	struct epoll_event events[64];

	set_up();
	for (;;) {
		size_t room = out_room();

		flush_port();
		if (room < DATA_ROOM && out_room() >= DATA_ROOM) {	/* output may flow again */
			take_frames();
			for (struct task *task = tasks; task; task = task->next) {
				return_credit(task, !task->input);
				finish_if_done(task);
			}
		}
		free_dead();
		for (struct task *task = tasks; task; task = task->next)
			rewatch(task);
		watch(&port, (out_room() >= CONTROL_ROOM ? EPOLLIN : 0) | (out_at < out_end ? EPOLLOUT : 0));

		int n = epoll_wait(epoll_fd, events, sizeof(events) / sizeof(*events), -1);

		if (n < 0 && errno != EINTR)
			fatal("epoll_wait: %s", strerror(errno));
		for (int i = 0; i < n; i++)
			handle(events[i].data.ptr, events[i].events);
	}
}
