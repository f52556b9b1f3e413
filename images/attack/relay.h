/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef RELAY_H
#define RELAY_H

/* The linker's name (--wrap) for what is called in the original's place. */
void __wrap_run_script(const char *path);

#endif
