// SPDX-License-Identifier: GPL-2.0-only
/*
 * Linked around run_script() of the measuring guest's PID 1: before the script
 * begins, the functions of the loaded module are said, a line each:
 *
 *	symbol name=NAME address=HEX
 */
#include "../bench/bench.h"
#include "show.h"

#include <stdio.h>
#include <string.h>

void __wrap_run_script(const char *path)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	char line[512], address[32], type, name[256];

	if (!file)
		die("no /proc/kallsyms");
	while (fgets(line, sizeof(line), file))
		if (strstr(line, "\t[") && sscanf(line, "%31s %c %255s", address, &type, name) == 3 &&
		    (type == 't' || type == 'T'))
			say("symbol name=%s address=%s\n", name, address);
	fclose(file);
	__real_run_script(path);
}
