// SPDX-License-Identifier: GPL-2.0-only
/*
 * full_scans is for anybody to read. Where that is not so, an attacker waits for as long as passes take as a rule.
 */
#include "attack.h"

#include <inttypes.h>

#define FULL_SCANS	"/sys/kernel/mm/ksm/full_scans"
#define POLL_MS		5
#define PASS_MS		200
#define GIVE_UP_NS	(300 * NS_PER_S)

bool full_scans(uint64_t *scans)
{
	FILE *file = fopen(FULL_SCANS, "re");
	bool known = file && fscanf(file, "%" SCNu64, scans) == 1;

	if (file)
		fclose(file);
	return known;
}

void wait_scans(uint64_t goal)
{
	uint64_t scans = 0, began = now_ns();

	while (full_scans(&scans) && scans < goal) {
		if (now_ns() - began > GIVE_UP_NS)
			die("the merger does not get on");
		pause_ms(POLL_MS);
	}
}

/* The one that is under way does not count. */
void wait_passes(unsigned int passes)
{
	uint64_t scans;

	if (full_scans(&scans))
		wait_scans(scans + passes + 1);
	else
		pause_ms((passes + 1) * PASS_MS);
}
