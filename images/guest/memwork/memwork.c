// SPDX-License-Identifier: GPL-2.0-only
/*
 * memwork: carries out, in a guest, what the host decides that memory is to hold.
 *
 *	memwork drive				requests on stdin, answers on stdout (protocol.h)
 *	memwork digest SECRET PID...		digests of processes' private anonymous pages (digest.h)
 *	memwork work SOCKET WORKER		what OP_EXEC begins
 *	memwork exec-merge PROGRAM ARGUMENT...	run a program all of whose memory may be merged
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "content.h"
#include "digest.h"
#include "driver.h"
#include "io.h"
#include "worker.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

static int usage(void)
{
	fputs("usage: memwork drive | digest SECRET PID... | exec-merge PROGRAM ARGUMENT...\n", stderr);
	return 2;
}

static int digest_processes(char **arguments)
{
	set_secret(strtoull(*arguments, NULL, 0));
	for (char **pid = arguments + 1; *pid; pid++) {
		int code = digest_process(atoi(*pid));

		if (code)
			return code;
	}
	return fflush(stdout) ? 2 : 0;
}

static int exec_merge(char **command)
{
	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0))
		fail("PR_SET_MEMORY_MERGE");
	execvp(*command, command);
	fail(*command);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "drive") == 0)
		return drive();
	if (argc == 4 && strcmp(argv[1], "work") == 0)
		work(atoi(argv[2]), (uint32_t)atoi(argv[3]));
	if (argc >= 4 && strcmp(argv[1], "digest") == 0)
		return digest_processes(argv + 2);
	if (argc >= 3 && strcmp(argv[1], "exec-merge") == 0)
		return exec_merge(argv + 2);
	return usage();
}
