/* A growing byte buffer. Owner: whoever declared it; buf_free() always. Never fails on
 * allocation: memory exhaustion aborts (the daemons run with a small, bounded heap). */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct buf { uint8_t *data; size_t len, cap; };

void buf_append(struct buf *b, const void *data, size_t len);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for len more bytes and returns where they go; the caller adds to b->len. */
void *buf_reserve(struct buf *b, size_t len);
/* Drops the first len bytes. */
void buf_consume(struct buf *b, size_t len);
void buf_free(struct buf *b);
/* The content as a C string; valid until the next change. */
const char *buf_str(struct buf *b);

/* malloc family that aborts when memory is out. */
void *mem_alloc(size_t size);          /* zeroed */
void *mem_realloc(void *p, size_t size);
void *mem_dup(const void *p, size_t size);
char *str_dup(const char *s);
char *str_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
