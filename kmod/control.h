/* SPDX-License-Identifier: GPL-2.0-only */
/* Files that people read and write, and what governs the scanners. */
#ifndef SAMEPAGE_CONTROL_H
#define SAMEPAGE_CONTROL_H

#include <linux/sysfs.h>

/* sysfs_ksm.c, sysfs_samepage.c */
extern const struct attribute_group sp_ksm_group;
long sp_metadata_bytes(void);
int sp_sysfs_init(void);
void sp_sysfs_exit(void);

/* advisor.c */
extern const struct attribute_group sp_advisor_group;
struct sp_advisor_limits {
	unsigned long max_cpu;		/* percent of a CPU */
	unsigned long min_pages;	/* pages_to_scan to begin with */
	unsigned long max_pages;
	unsigned long target_seconds;	/* for a pass */
};

extern struct sp_advisor_limits sp_advisor_limits;
bool sp_advisor_on(void);
void sp_advisor_set(bool on);
void sp_advisor_pass_begins(void);
void sp_advisor_pass_ends(void);

/* governor.c */
extern const struct attribute_group sp_governor_group;
bool sp_governor_on(void);
void sp_governor_set(unsigned long seconds);
void sp_governor_round_begins(void);
void sp_governor_round_ends(unsigned int pages);
void sp_governor_pass_begins(void);
unsigned long sp_governor_nap_ticks(void);

/* sysfs_domains.c */
extern const struct attribute_group sp_domain_group;

/* device.c */
int sp_device_init(void);
void sp_device_exit(void);

/* reserve.c */
extern const struct attribute_group sp_reserve_group;
void sp_reserve_adjust(void);
void sp_reserve_drop(void);
unsigned long sp_reserve_faults(void);
int sp_reserve_init(void);
void sp_reserve_exit(void);

#endif
