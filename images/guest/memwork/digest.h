/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef MEMWORK_DIGEST_H
#define MEMWORK_DIGEST_H

#include <stdint.h>

#include "protocol.h"

#define END_OF_PROCESS	UINT64_MAX	/* as the address of a record; its digest is then the number of records */

struct record {
	uint64_t address;
	uint64_t digest;
	struct frame frame;
};

/* Write a record for each private anonymous page of the process to stdout; 0 or an exit code. */
int digest_process(int pid);

#endif
