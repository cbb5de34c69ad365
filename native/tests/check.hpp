// The whole of our test framework: a check that names what failed, and an exit status.
#pragma once

#include <cstdio>

namespace stoker_test {
inline int failures = 0;
}

#define CHECK(condition)                                                                  \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition);  \
      ++stoker_test::failures;                                                            \
    }                                                                                     \
  } while (false)

#define RETURN_RESULT() return stoker_test::failures == 0 ? 0 : 1
