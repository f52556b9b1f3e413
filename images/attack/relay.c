// SPDX-License-Identifier: GPL-2.0-only
/*
 * Linked around run_script() of the measuring guest's PID 1: the script is for /attack, whose output is what the guest
 * says. The program itself is the same file as in other guests (images/guest/attack).
 */
#define _GNU_SOURCE
#include "../bench/bench.h"
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/io.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM	"/attack"
#define PORT	0xe9	/* QEMU's isa-debugcon; lines are longer than say() takes */

_Noreturn static void run_program(const char *script, int output)
{
	int input = open(script, O_RDONLY | O_CLOEXEC);

	if (input < 0)
		die("no %s", script);
	dup2(input, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	execl(PROGRAM, "attack", "direct", NULL);
	die("%s: %s", PROGRAM, strerror(errno));
}

void __wrap_run_script(const char *path)
{
	char text[4096];
	int pair[2], status;
	ssize_t got;

	if (pipe2(pair, O_CLOEXEC))
		die("pipe: %s", strerror(errno));

	pid_t pid = fork();

	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (!pid)
		run_program(path, pair[1]);
	close(pair[1]);
	while ((got = read(pair[0], text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < got; i++)
			outb((unsigned char)text[i], PORT);
	if (waitpid(pid, &status, 0) != pid || status)
		die("%s ended with status %#x", PROGRAM, status);
}
