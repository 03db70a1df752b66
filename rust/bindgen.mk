# SPDX-License-Identifier: GPL-2.0-only
# Generates rust/bindings_generated.rs: what kernel::bindings lacks (listed in rust/bindgen_parameters).
#
# The kernel has the command and the C flags for this in rust/Makefile and exports neither to modules. They are read
# from there at build time, so that they are right for the kernel that is built for.

imgstream-bindgen-mk := $(obj)/.imgstream_bindgen.mk
$(if $(shell sh $(src)/scripts/kbuild/bindgen-rules.sh $(srctree) $(imgstream-bindgen-mk) || echo failed), \
	$(error $(srctree)/rust/Makefile: cannot read the bindgen rules))
include $(imgstream-bindgen-mk)

# Types come from the kernel crate, so that a `struct bio` here is its `struct bio`.
$(obj)/rust/bindings_generated.rs: private bindgen_target_flags = \
	$(shell grep -Ev '^#|^$$' $(src)/rust/bindgen_parameters) \
	--no-doc-comments --no-recursive-allowlist --raw-line 'pub(crate) use kernel::bindings::*;'
$(obj)/rust/bindings_generated.rs: private bindgen_target_extra = ; \
	sed -Ei 's/pub const RUST_CONST_HELPER_([a-zA-Z0-9_]*)/pub const \1/g' $@
$(obj)/rust/bindings_generated.rs: $(src)/rust/bindings_helper.h $(src)/rust/bindgen_parameters FORCE
	$(call if_changed_dep,bindgen)
targets += rust/bindings_generated.rs
