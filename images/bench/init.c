// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KERNEL_MODULES	"/modules.load"	/* of the kernel's own, in order */
#define MODULE		"/module.ko"
#define TRANSITION	"/sys/kernel/livepatch/samepage/transition"
#define PATCH_MS	60000

static void must_mount(const char *where, const char *type)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, ""))
		die("mount %s: %s", where, strerror(errno));
}

static bool load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (syscall(SYS_finit_module, fd, "", 0))
		die("load %s: %s", path, strerror(errno));
	close(fd);
	unlink(path);
	return true;
}

static void load_kernel_modules(void)
{
	char path[MAX_LINE];
	FILE *list = fopen(KERNEL_MODULES, "re");

	while (list && fgets(path, sizeof(path), list)) {
		path[strcspn(path, "\n")] = '\0';
		if (!load(path))
			die("no %s", path);
	}
	if (list)
		fclose(list);
}

/* The module takes merging over once every task runs its functions. */
static void load_module(void)
{
	int64_t transition = 1;

	if (!load(MODULE))
		return;
	for (int ms = 0; transition; ms += 10) {
		if (!read_number(TRANSITION, &transition) || ms > PATCH_MS)
			die("the module did not take over");
		pause_us(10000);
	}
}

/* And for no child of this process. */
void set_policy(int policy, int priority)
{
	const struct sched_param param = { .sched_priority = priority };

	if (sched_setscheduler(0, policy | SCHED_RESET_ON_FORK, &param))
		die("policy %d: %s", policy, strerror(errno));
}

/*
 * Whoever waits for a scanner must not want its CPU: the kernel (6.12, RQCF_REQ_SKIP) reads the clock when somebody is
 * woken who is to run next, and not again when the scanner gives way at last, which may be 200,000 instructions later.
 * Those are charged to the one who was woken.
 */
void step_back(void)
{
	set_policy(SCHED_IDLE, 0);
}

int main(void)
{
	static const struct sigaction ignore = { .sa_handler = SIG_IGN };

	must_mount("/dev", "devtmpfs");
	must_mount("/proc", "proc");
	must_mount("/sys", "sysfs");
	open_output();
	sigaction(SIGPIPE, &ignore, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, "");
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, "");
	load_kernel_modules();
	load_module();
	step_back();
	run_script("/case");
	finish();
}
