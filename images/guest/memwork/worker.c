// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
/*
 * A worker: one address space, and what is to be done in it.
 *
 * Requests, answers and tables lie in shared mappings, which KSM leaves alone, so that only what the host asked for can
 * be merged.
 */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "content.h"
#include "inspect.h"
#include "io.h"
#include "rewrite.h"

struct worker {
	uint32_t id;
	int socket;
	char *request;
	char *answer;
	struct rewriting rewriting;
};

static struct worker self;

/* An access that the kernel refused (nothing mapped, a poisoned page) is an error of the request, not our end. */
static sigjmp_buf before_access;
static volatile sig_atomic_t guarded;
static int fault_signal;
static void *fault_address;

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
	(void)context;
	if (!guarded) {
		signal(signal_number, SIG_DFL);
		return;	/* and the access faults again */
	}
	fault_signal = signal_number;
	fault_address = info->si_addr;
	siglongjmp(before_access, 1);
}

static void catch_faults(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

static void reply(const void *payload, size_t size)
{
	if (!send_answer(self.socket, self.id, 0, payload, size))
		_exit(0);
}

static void reply_error(int error, const char *what)
{
	int size = snprintf(self.answer, MAX_PAYLOAD, "%s: %s", what, strerror(error));

	if (!send_answer(self.socket, self.id, error, self.answer, (size_t)size))
		_exit(0);
}

static void do_syscall(uint32_t size)
{
	int64_t *arguments = (int64_t *)self.request;

	if (size != 7 * sizeof(*arguments)) {
		reply_error(EINVAL, "a system call takes its number and six arguments");
		return;
	}
	long result = syscall(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5],
			      arguments[6]);

	if (result == -1) {
		reply_error(errno, "system call");
		return;
	}
	reply(&result, sizeof(result));
}

static void do_merge_any(bool on)
{
	int error = on ? merge_any_on() : merge_any_off();

	if (error)
		reply_error(error, "PR_SET_MEMORY_MERGE");
	else
		reply(NULL, 0);
}

static void do_fill(uint32_t size)
{
	struct run *runs = (struct run *)self.request;

	for (size_t i = 0; i < size / sizeof(*runs); i++) {
		if (runs[i].kind >= KINDS) {
			reply_error(EINVAL, "no such kind of content");
			return;
		}
		for (uint64_t page = 0; page < runs[i].pages; page++)
			fill_page((uint64_t *)(runs[i].address + page * PAGE_BYTES), runs[i].kind,
				  runs[i].key + page * runs[i].step);
	}
	reply(NULL, 0);
}

static void do_poke(uint32_t size)
{
	struct poke *pokes = (struct poke *)self.request;

	for (size_t i = 0; i < size / sizeof(*pokes); i++) {
		if (pokes[i].size < 1 || pokes[i].size > sizeof(pokes[i].value)) {
			reply_error(EINVAL, "a poke writes 1 to 8 bytes");
			return;
		}
		memcpy((void *)pokes[i].address, &pokes[i].value, pokes[i].size);
	}
	reply(NULL, 0);
}

/* Pages in all ranges, or -1 after an error answer: more than an answer with `item` bytes a page can hold. */
static int64_t count_pages(uint32_t size, size_t item)
{
	struct range *ranges = (struct range *)self.request;
	uint64_t limit = MAX_PAYLOAD / item, pages = 0;

	for (size_t i = 0; i < size / sizeof(*ranges); i++) {
		pages += ranges[i].pages;
		if (ranges[i].pages > limit || pages > limit) {
			reply_error(E2BIG, "too many pages for one answer");
			return -1;
		}
	}
	return (int64_t)pages;
}

static void do_digest(uint32_t size)
{
	struct range *ranges = (struct range *)self.request;
	uint64_t *digest = (uint64_t *)self.answer;
	int64_t pages = count_pages(size, sizeof(*digest));

	if (pages < 0)
		return;
	for (size_t i = 0; i < size / sizeof(*ranges); i++)
		for (uint64_t page = 0; page < ranges[i].pages; page++)
			*digest++ = digest_page((uint64_t *)(ranges[i].address + page * PAGE_BYTES));
	reply(self.answer, (size_t)pages * sizeof(*digest));
}

static void do_frames(uint32_t size)
{
	struct range *ranges = (struct range *)self.request;
	struct frame *frames = (struct frame *)self.answer;
	int64_t pages = count_pages(size, sizeof(*frames));

	if (pages < 0)
		return;
	for (size_t i = 0; i < size / sizeof(*ranges); i++) {
		int error = read_frames(getpid(), ranges[i].address, ranges[i].pages, frames);

		if (error) {
			reply_error(error, "reading pagemap and /proc/kpageflags");
			return;
		}
		frames += ranges[i].pages;
	}
	reply(self.answer, (size_t)pages * sizeof(*frames));
}

static void do_move(uint32_t size, int node)
{
	int *status = (int *)self.answer;
	int64_t pages = count_pages(size, sizeof(*status));

	if (pages < 0)
		return;
	int error = move_ranges((struct range *)self.request, size / sizeof(struct range), (uint64_t)pages, node, status);

	if (error)
		reply_error(error, "move_pages");
	else
		reply(status, (size_t)pages * sizeof(*status));
}

static void do_read(uint32_t size)
{
	uint64_t *where = (uint64_t *)self.request;

	if (size != 2 * sizeof(*where) || where[1] > MAX_PAYLOAD) {
		reply_error(EINVAL, "a read takes an address and a length");
		return;
	}
	memcpy(self.answer, (void *)where[0], where[1]);
	reply(self.answer, where[1]);
}

static void do_rewrite(uint32_t size)
{
	struct rewrite *plan = (struct rewrite *)self.request;

	if (size != sizeof(*plan) || plan->kind >= KINDS || !plan->pages || !plan->burst) {
		reply_error(EINVAL, "that is no plan for rewriting");
		return;
	}
	start_rewriting(&self.rewriting, plan);
	reply(NULL, 0);
}

static void do_rewrite_stop(void)
{
	uint64_t written = self.rewriting.written;
	bool failed = self.rewriting.failed;

	self.rewriting = (struct rewriting){ 0 };
	if (failed)
		reply_error(EFAULT, "the pages to rewrite could not be written");
	else
		reply(&written, sizeof(written));
}

static void start(int socket, uint32_t id)
{
	uint64_t pid = (uint64_t)getpid();

	self.socket = socket;
	self.id = id;
	self.request = unmergeable_memory(MAX_PAYLOAD);
	self.answer = unmergeable_memory(MAX_PAYLOAD);
	self.rewriting = (struct rewriting){ 0 };
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	reply(&pid, sizeof(pid));
}

static void do_fork(uint32_t id, int socket)
{
	/* The driver is to be the parent of all, so that it can wait for all. */
	long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid < 0) {
		int error = errno;
		int size = snprintf(self.answer, MAX_PAYLOAD, "fork: %s", strerror(error));

		send_answer(socket, id, error, self.answer, (size_t)size);
	}
	if (pid) {
		close(socket);
		return;
	}
	close(self.socket);
	/* They are shared, with our parent now. */
	munmap(self.request, MAX_PAYLOAD);
	munmap(self.answer, MAX_PAYLOAD);
	start(socket, id);
}

static void do_exec(void)
{
	char socket[16], id[16];
	char *const arguments[] = { "memwork", "work", socket, id, NULL };

	snprintf(socket, sizeof(socket), "%d", self.socket);
	snprintf(id, sizeof(id), "%u", self.id);
	fcntl(self.socket, F_SETFD, 0);
	execv("/proc/self/exe", arguments);
	reply_error(errno, "exec");
}

static void handle(const struct header *request, int descriptor)
{
	switch ((enum op)request->what) {
	case OP_FORK:
		do_fork(request->argument, descriptor);
		break;
	case OP_EXIT:
		_exit(0);
	case OP_EXEC:
		do_exec();
		break;
	case OP_SYSCALL:
		do_syscall(request->size);
		break;
	case OP_MERGE_ANY:
		do_merge_any(request->argument);
		break;
	case OP_FILL:
		do_fill(request->size);
		break;
	case OP_POKE:
		do_poke(request->size);
		break;
	case OP_DIGEST:
		do_digest(request->size);
		break;
	case OP_FRAMES:
		do_frames(request->size);
		break;
	case OP_REWRITE:
		do_rewrite(request->size);
		break;
	case OP_REWRITE_STOP:
		do_rewrite_stop();
		break;
	case OP_READ:
		do_read(request->size);
		break;
	case OP_MOVE:
		do_move(request->size, (int)request->argument);
		break;
	case OP_SECRET:
		set_secret(*(uint64_t *)self.request);
		reply(NULL, 0);
		break;
	default:
		reply_error(EINVAL, "no such request");
		break;
	}
}

static void report_fault(void)
{
	char what[64];

	snprintf(what, sizeof(what), "%s at %p", fault_signal == SIGBUS ? "SIGBUS" : "SIGSEGV", fault_address);
	reply_error(EFAULT, what);
}

static void rewrite_until_asked(void)
{
	struct pollfd polled = { .fd = self.socket, .events = POLLIN };

	while (self.rewriting.plan.pages && !self.rewriting.failed) {
		if (poll(&polled, 1, milliseconds_to_burst(&self.rewriting)) > 0)
			return;
		guarded = 1;
		if (sigsetjmp(before_access, 1))
			self.rewriting.failed = true;
		else
			rewrite_when_due(&self.rewriting);
		guarded = 0;
	}
}

_Noreturn void work(int socket, uint32_t id)
{
	catch_faults();
	remember_own_memory();
	start(socket, id);
	for (;;) {
		struct header request;
		int descriptor;

		rewrite_until_asked();
		if (!receive_header_with_fd(self.socket, &request, &descriptor) ||
		    !read_whole(self.socket, self.request, request.size))
			_exit(0);
		guarded = 1;
		if (sigsetjmp(before_access, 1))
			report_fault();
		else
			handle(&request, descriptor);
		guarded = 0;
	}
}
