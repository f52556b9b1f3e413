// SPDX-License-Identifier: GPL-2.0-only
#include "bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/reboot.h>
#include <unistd.h>

#define PORT 0xe9	/* QEMU's isa-debugcon */

void open_output(void)
{
	if (ioperm(PORT, 1, 1))
		die("ioperm: %s", strerror(errno));
}

static void say_list(const char *format, va_list args)
{
	char text[8192];
	int size = vsnprintf(text, sizeof(text), format, args);

	for (int i = 0; i < size && i < (int)sizeof(text) - 1; i++)
		outb((unsigned char)text[i], PORT);
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_list(format, args);
	va_end(args);
}

void finish(void)
{
	say("end\n");
	sync();
	reboot(RB_AUTOBOOT);
	_exit(1);
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say("error ");
	say_list(format, args);
	say("\n");
	va_end(args);
	/* A worker takes PID 1 along: it finds its pipe closed. */
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	_exit(1);
}
