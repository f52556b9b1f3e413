// SPDX-License-Identifier: GPL-2.0-only
/*
 * The scan-time advisor: after each pass, sets pages_to_scan so that the next
 * one takes about advisor_target_scan_time seconds, within a share of a CPU and
 * a number of pages. Formula, limits and defaults are those of Linux 6.12, so
 * that a tuned system behaves as before.
 *
 * State is changed when a pass begins or ends, or under sp_scan_lock for writing;
 * tunables at any time.
 */
#include <linux/kstrtox.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "samepage.h"
#include "attrs.h"
#include "control.h"

#define SP_DEFAULT_PAGES_TO_SCAN 100
#define SP_MIN_CPU_PERCENT	10
#define SP_NEW_WEIGHT_PERCENT	30	/* of the newest change in the average */

static bool sp_advising;

struct sp_advisor_limits sp_advisor_limits = {
	.max_cpu = 70,
	.min_pages = 500,
	.max_pages = 30000,
	.target_seconds = 200,
};

static struct {
	ktime_t start;
	unsigned long seconds;		/* that the last pass took, 0: none yet */
	unsigned long change;		/* average of its changes, percent */
	u64 cpu_ns;			/* of the scanners, up to the last pass */
} sp_last;

bool sp_advisor_on(void)
{
	return READ_ONCE(sp_advising);
}

/* Needs sp_scan_lock for writing, or scanners that do not run yet. */
void sp_advisor_set(bool on)
{
	if (on)
		sp_governor_set(0);
	if (on == sp_advising)
		return;
	memset(&sp_last, 0, sizeof(sp_last));
	WRITE_ONCE(sp_tunables.pages_to_scan,
		   on ? sp_advisor_limits.min_pages : SP_DEFAULT_PAGES_TO_SCAN);
	WRITE_ONCE(sp_advising, on);
}

void sp_advisor_pass_begins(void)
{
	if (sp_advisor_on())
		sp_last.start = ktime_get();
}

/* The share of a CPU that scanning took since the last pass, at least 1 percent. */
static unsigned long sp_cpu_percent(unsigned long seconds)
{
	u64 cpu_ns = sp_scan_cpu_ns();
	unsigned long used_ms = (cpu_ns - sp_last.cpu_ns) / NSEC_PER_MSEC;

	sp_last.cpu_ns = cpu_ns;
	return max(used_ms * 100 / (seconds * MSEC_PER_SEC), 1UL);
}

void sp_advisor_pass_ends(void)
{
	unsigned long now = READ_ONCE(sp_tunables.pages_to_scan);
	unsigned long seconds, percent, factor, change, pages, pages_per_percent;

	if (!sp_advisor_on())
		return;
	seconds = max(ktime_ms_delta(ktime_get(), sp_last.start) / MSEC_PER_SEC, 1L);
	percent = sp_cpu_percent(seconds);
	pages_per_percent = max(now / percent, 1UL);

	factor = max(READ_ONCE(sp_advisor_limits.target_seconds) * 100 / seconds, 1UL);
	change = max(seconds * 100 / (sp_last.seconds ?: seconds), 1UL);
	change = ((100 - SP_NEW_WEIGHT_PERCENT) * sp_last.change +
		  SP_NEW_WEIGHT_PERCENT * change) / 100;

	pages = now * 100 / factor * change / 100;
	pages = min(pages, pages_per_percent * READ_ONCE(sp_advisor_limits.max_cpu));
	pages = max(pages, pages_per_percent * SP_MIN_CPU_PERCENT);
	pages = min(pages, READ_ONCE(sp_advisor_limits.max_pages));

	sp_last.seconds = seconds;
	sp_last.change = change;
	WRITE_ONCE(sp_tunables.pages_to_scan, pages);
	sp_trace_advisor(seconds, pages, percent);
}

static ssize_t advisor_mode_show(struct kobject *kobj, struct kobj_attribute *attr,
				 char *buf)
{
	return sysfs_emit(buf, "%s\n", sp_advisor_on() ? "none [scan-time]" :
							  "[none] scan-time");
}

static ssize_t advisor_mode_store(struct kobject *kobj, struct kobj_attribute *attr,
				  const char *buf, size_t count)
{
	bool on = sysfs_streq(buf, "scan-time");

	if (!on && !sysfs_streq(buf, "none"))
		return -EINVAL;
	down_write(&sp_scan_lock);
	sp_advisor_set(on);
	up_write(&sp_scan_lock);
	sp_scan_wake();		/* the governor is off now, if it was on */
	return count;
}

static struct sp_attr sp_attr_advisor_mode = {
	.attr = __ATTR(advisor_mode, 0644, advisor_mode_show, advisor_mode_store)
};

static ssize_t advisor_limit_store(struct kobject *kobj, struct kobj_attribute *attr,
				   const char *buf, size_t count)
{
	unsigned long value;

	if (kstrtoul(buf, 10, &value))
		return -EINVAL;
	WRITE_ONCE(*container_of(attr, struct sp_attr, attr)->limit, value);
	return count;
}

static ssize_t advisor_target_store(struct kobject *kobj, struct kobj_attribute *attr,
				    const char *buf, size_t count)
{
	unsigned long value;

	if (kstrtoul(buf, 10, &value) || !value)
		return -EINVAL;
	WRITE_ONCE(sp_advisor_limits.target_seconds, value);
	return count;
}

#define SP_LIMIT(name, value, store) static struct sp_attr sp_attr_##name = {	\
	.attr = __ATTR(name, 0644, sp_count_show, store), .limit = value }

SP_LIMIT(advisor_max_cpu, &sp_advisor_limits.max_cpu, advisor_limit_store);
SP_LIMIT(advisor_min_pages_to_scan, &sp_advisor_limits.min_pages, advisor_limit_store);
SP_LIMIT(advisor_max_pages_to_scan, &sp_advisor_limits.max_pages, advisor_limit_store);
SP_LIMIT(advisor_target_scan_time, &sp_advisor_limits.target_seconds, advisor_target_store);

static struct attribute *sp_advisor_attrs[] = {
	&sp_attr_advisor_mode.attr.attr,
	&sp_attr_advisor_max_cpu.attr.attr,
	&sp_attr_advisor_min_pages_to_scan.attr.attr,
	&sp_attr_advisor_max_pages_to_scan.attr.attr,
	&sp_attr_advisor_target_scan_time.attr.attr,
	NULL,
};

/* Merged into the group of the same name. */
const struct attribute_group sp_advisor_group = {
	.name = "ksm",
	.attrs = sp_advisor_attrs,
};
