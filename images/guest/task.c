// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs: started, fed, listened to, killed, reaped.
 *
 * Output is read from a program only when the host has credit for it and the
 * port's buffer has room; input waits here, at most WINDOW bytes of it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

#define KILL_ROUNDS	20

static struct task *tasks;
static struct rlimit file_limit;	/* of the programs */

struct task *find_task(uint32_t id)
{
	for (struct task *task = tasks; task; task = task->next)
		if (task->id == id && !task->dead)
			return task;
	return NULL;
}

/* Watches what can make progress now; called whenever that may have changed. */
void rewatch(struct task *task)
{
	bool room = task->credit && out_room() >= DATA_ROOM;

	watch(&task->out, room ? EPOLLIN : 0);
	watch(&task->err, room ? EPOLLIN : 0);
	watch(&task->in, task->input_at < task->input_end ? EPOLLOUT : 0);
}

void rewatch_all(void)
{
	for (struct task *task = tasks; task; task = task->next)
		rewatch(task);
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

void free_dead(void)
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

void forward_output(struct source *source)
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
void forward_input(struct task *task)
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

void end_input(struct task *task)
{
	task->input_ends = true;
	forward_input(task);
}

void take_input(struct task *task, const uint8_t *data, size_t size)
{
	if (task->input_at) {
		memmove(task->input, task->input + task->input_at, task->input_end - task->input_at);
		task->input_end -= task->input_at;
		task->input_at = 0;
	}
	if (task->input_ends || task->input_end + size > WINDOW)
		fatal("id %u: input beyond its %s", task->id, task->input_ends ? "end" : "window");
	if (!task->input)
		task->input = malloc(WINDOW);
	if (!task->input)
		fatal("id %u: no memory for input", task->id);
	memcpy(task->input + task->input_end, data, size);
	task->input_end += size;
	forward_input(task);
}

/* Signals every process of the session; the sum of their ids tells two rounds apart. */
static long signal_session(pid_t session, int sig)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	long sum = 0;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && getsid(pid) == session && kill(pid, sig) == 0)
			sum += pid;
	}
	if (proc)
		closedir(proc);
	return sum;
}

/*
 * The session, because a shell gives each job a process group of its own.  A
 * child that is born while the list is read is found in the next round.
 */
void kill_session(struct task *task, int sig)
{
	long before = 0, now = signal_session(task->pid, sig);

	for (int round = 0; sig == SIGKILL && now != before && round < KILL_ROUNDS; round++) {
		before = now;
		now = signal_session(task->pid, sig);
	}
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

void reap_children(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		reap(pid, status);
}

/* Three pipes for each program: as many as may be, for the agent alone. */
void raise_file_limit(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &file_limit);
	limit = file_limit;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* In the child: a session of its own, default signals, and only its three files. */
static int enter_child(int in, int out, int err)
{
	sigset_t none;
	int sig;

	sigemptyset(&none);
	for (sig = 1; sig < NSIG; sig++)	/* what cannot be set is default */
		signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	setrlimit(RLIMIT_NOFILE, &file_limit);
	/* The agent is exempt from the OOM killer, what it starts is not. */
	set_oom_score("0");
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

void start_task(uint32_t id, enum frame_type type, int argc, char **argv, char **env, const char *cwd)
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

/* There is room for frames again: what had to wait for it goes on. */
void resume_all(void)
{
	for (struct task *task = tasks; task; task = task->next) {
		return_credit(task, !task->input);
		finish_if_done(task);
	}
}
