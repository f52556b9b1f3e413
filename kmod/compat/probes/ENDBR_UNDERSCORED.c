// SPDX-License-Identifier: GPL-2.0-only
/* The inline test of an instruction is __is_endbr() */
#include <linux/types.h>
#include <asm/ibt.h>
bool probe(u32 instruction);
bool probe(u32 instruction)
{
	return __is_endbr(instruction);
}
