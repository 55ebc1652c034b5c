# Builds the dynamic module (and, from a full source tree, nginx itself).
#
#     make                                 for Debian's nginx (package nginx-dev)
#     make NGINX_SRC=/path/to/nginx        for any nginx from 1.22 on
#     make BUILD=release|debug|sanitize    sanitize needs a full source tree
#     make CC=clang
#
# What is built is in build/<source>-<compiler>-<BUILD>/.

NGINX_SRC ?= /usr/share/nginx/src
BUILD     ?= release
ifeq ($(origin CC),default)
CC        := gcc
endif

SRC_NAME  := $(notdir $(patsubst %/,%,$(NGINX_SRC)))
ifeq ($(NGINX_SRC),/usr/share/nginx/src)
SRC_NAME  := debian
endif

TREE      := $(CURDIR)/build/$(SRC_NAME)-$(notdir $(CC))-$(BUILD)
MODULE    := $(TREE)/objs/ngx_http_nango_module.so

# nginx itself reads words anywhere, copies nothing from NULL and adds to it;
# run it with ASAN_OPTIONS=detect_odr_violation=0, since a module and nginx
# both have an ngx_module_names.

WARN      := -Wall -Wextra -Werror -Wno-unused-parameter

CFLAGS_release  := -O2 -g
CFLAGS_debug    := -O0 -g3
CFLAGS_sanitize := -O1 -g3 -fno-omit-frame-pointer -DNGX_DEBUG_PALLOC=1 \
                   -fsanitize=address,undefined -fno-sanitize-recover=all \
                   -fno-sanitize=alignment,nonnull-attribute,pointer-overflow
LDFLAGS_sanitize := -fsanitize=address,undefined
FLAGS_debug     := --with-debug
FLAGS_sanitize  := --with-debug

# Debian says how its nginx was configured; a module must be built alike.
DEBIAN_FLAGS = . $(NGINX_SRC)/conf_flags && set -- "$${NGX_CONF_FLAGS[@]}"

# A full tree has its main(); nginx itself is built beside the module.
FULL      := $(wildcard $(NGINX_SRC)/src/core/nginx.c)

CONFIGURE := $(if $(wildcard $(NGINX_SRC)/configure),configure,auto/configure)

SOURCES   := $(wildcard config src/*/*.[ch] src/*.c)

.PHONY: all module nginx clean unit

all: module

module: $(MODULE)

# nginx's configure wants to stand in the source tree, and writes there; so
# every build has a tree of links.

$(TREE)/objs/Makefile: config Makefile $(wildcard src/*/*.c)
	@mkdir -p $(TREE)
	cp -rsf $(abspath $(NGINX_SRC))/. $(TREE)/ 2>/dev/null || true
	cd $(TREE) && bash -c 'set -e; \
	    if [ -f $(NGINX_SRC)/conf_flags ]; then $(DEBIAN_FLAGS); \
	    else set -- --with-compat --with-threads \
	        --with-http_ssl_module --with-http_v2_module \
	        --with-http_auth_request_module --with-http_realip_module \
	        --with-http_stub_status_module; fi; \
	    ./$(CONFIGURE) "$$@" $(FLAGS_$(BUILD)) \
	        --with-cc=$(CC) \
	        --with-cc-opt="$(CFLAGS_$(BUILD)) $(CFLAGS)" \
	        --with-ld-opt="$(LDFLAGS_$(BUILD))" \
	        --add-dynamic-module=$(CURDIR) > configure.log \
	        || { tail -n 20 configure.log; exit 1; }'

$(MODULE): $(TREE)/objs/Makefile $(SOURCES)
	$(MAKE) -C $(TREE) -f objs/Makefile \
	    $(if $(FULL),build,modules) \
	    CFLAGS="`sed -n 's/^CFLAGS =//p' $(TREE)/objs/Makefile` $(WARN)"
	@echo built $(patsubst $(CURDIR)/%,%,$@)

unit:
	$(MAKE) -C t/unit CC=$(CC) BUILD=$(BUILD) test

clean:
	rm -rf build
