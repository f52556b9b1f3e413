// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernels that the module was tested on. It reaches into mm/ by name, so
 * another one is refused even where everything is found. The build may widen
 * the range: KCFLAGS=-DSP_KERNEL_END=...
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/version.h>
#include "compat.h"

#ifndef SP_KERNEL_FIRST
#define SP_KERNEL_FIRST KERNEL_VERSION(6, 1, 0)
#endif
#ifndef SP_KERNEL_END
#define SP_KERNEL_END KERNEL_VERSION(7, 4, 0)	/* the first one too new */
#endif

int sp_kernel_check(void)
{
	const unsigned int built_for = LINUX_VERSION_CODE;

	if (built_for >= SP_KERNEL_FIRST && built_for < SP_KERNEL_END)
		return 0;
	pr_err("built for Linux %u.%u, supported are %u.%u up to below %u.%u\n",
	       built_for >> 16, (built_for >> 8) & 0xff,
	       SP_KERNEL_FIRST >> 16, (SP_KERNEL_FIRST >> 8) & 0xff,
	       SP_KERNEL_END >> 16, (SP_KERNEL_END >> 8) & 0xff);
	return -EOPNOTSUPP;
}
