/* Every error has a name and a text of its own, and a number that is none has a stand-in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"

static void every_error_has_its_own_name_and_text(void **state)
{
    (void)state;
    assert_string_equal(mp_err_name(MP_OK), "MP_OK");
    assert_string_equal(mp_err_name(MP_ECANCELLED), "MP_ECANCELLED");
    for (unsigned i = 0; i < MP_ERR_COUNT; i++) {
        assert_memory_equal(mp_err_name((enum mp_err)i), "MP_", 3);
        assert_true(mp_err_text((enum mp_err)i)[0] != '\0');
        for (unsigned j = 0; j < i; j++) {
            assert_string_not_equal(mp_err_name((enum mp_err)i), mp_err_name((enum mp_err)j));
            assert_string_not_equal(mp_err_text((enum mp_err)i), mp_err_text((enum mp_err)j));
        }
    }
    assert_string_equal(mp_err_text(MP_ERR_COUNT), "unknown error");
    assert_string_equal(mp_err_name(MP_ERR_COUNT), "MP_E?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_error_has_its_own_name_and_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
