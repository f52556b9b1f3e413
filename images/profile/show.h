/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef SHOW_H
#define SHOW_H

/* The linker's names (--wrap) for the original and for what is called in its place. */
void __real_run_script(const char *path);
void __wrap_run_script(const char *path);

#endif
