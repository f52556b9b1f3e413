/* SPDX-License-Identifier: GPL-2.0-only */
/* What is said to the service: a request, its data, and one byte in answer when it is done. */
#ifndef ATTACK_SERVICE_H
#define ATTACK_SERVICE_H

#include <stdint.h>

#define SERVICE_PORT	7777

enum wish {
	WISH_STORE,	/* keep the page that follows in place `at` */
	WISH_WRITE,	/* change a word of each of the `count` pages from place `at` on */
	WISH_QUOTE,	/* keep the `count` bytes that follow in place `at`, and the secret right behind them */
};

struct wish_header {
	uint32_t what;		/* enum wish */
	uint32_t at;
	uint32_t count;
};

#endif
