/* Cleanup attributes for owned locals. */
#pragma once

#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_ptr(void *p) { free(*(void **)p); }
static inline void cleanup_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define _cleanup_free_ __attribute__((cleanup(cleanup_free_ptr)))
#define _cleanup_close_ __attribute__((cleanup(cleanup_close_fd)))
/* Gives the pointer away: returns it and leaves NULL. */
#define TAKE_PTR(p) ({ __typeof__(p) take_ptr_ = (p); (p) = NULL; take_ptr_; })
#define TAKE_FD(fd) ({ int take_fd_ = (fd); (fd) = -1; take_fd_; })
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
