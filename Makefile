# Builds the dynamic module (and, from a full source tree, nginx itself).
#
#     make                                 for Debian's nginx (package nginx-dev)
#     make NGINX_SRC=/path/to/nginx        for any nginx from 1.22 on
#     make BUILD=release|debug
#     make BUILD=sanitize|thread|memcheck  for t/sanitize/run; needs a full
#                                          source tree, see t/sanitize/source
#     make CC=clang
#
# What is built is in build/<source>-<compiler>-<BUILD>/.

BUILD     ?= release
CHECKED   := $(filter sanitize thread memcheck,$(BUILD))
NGINX_SRC ?= $(if $(CHECKED),$(CURDIR)/build/nginx-src,/usr/share/nginx/src)
ifeq ($(origin CC),default)
CC        := gcc
endif

SRC_NAME  := $(notdir $(patsubst %/,%,$(NGINX_SRC)))
ifeq ($(NGINX_SRC),/usr/share/nginx/src)
SRC_NAME  := debian
endif

TREE      := $(CURDIR)/build/$(SRC_NAME)-$(notdir $(CC))-$(BUILD)
MODULE    := $(TREE)/objs/ngx_http_nango_module.so

WARN      := -Wall -Wextra -Werror -Wno-unused-parameter

# NGX_DEBUG_PALLOC gives each allocation from a pool a malloc() of its own.

CFLAGS_release  := -O2 -g
CFLAGS_debug    := -O0 -g3
CFLAGS_sanitize := -O1 -g -fno-omit-frame-pointer -DNGX_DEBUG_PALLOC=1 \
                   -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_thread   := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
CFLAGS_memcheck := -O1 -g -fno-omit-frame-pointer -DNGX_DEBUG_PALLOC=1
LDFLAGS_sanitize := -fsanitize=address,undefined
LDFLAGS_thread  := -fsanitize=thread
FLAGS_debug     := --with-debug

# nginx itself reads words anywhere, copies nothing from NULL and adds to it.
# What is allowed to nginx is not to us.

LENIENT   := alignment,nonnull-attribute,pointer-overflow

# A build for t/sanitize/run has besides: the module with planted faults, and
# in nginx the options of the sanitizers.

ifneq ($(CHECKED),)
FLAGS     := --with-debug --add-dynamic-module=$(CURDIR)/t/sanitize/planted
OPTIONS   := t/sanitize/options.c
NGINX_MAKE := --eval='objs/nginx: override LINK += objs/options.o \
                                  -Wl,--wrap=ngx_create_pool' \
              --eval='objs/nginx: objs/options.o'
ifeq ($(BUILD),sanitize)
CFLAGS_nginx := -fno-sanitize=$(LENIENT)
NGINX_MAKE += --eval='objs/addon/%.o: override CFLAGS += -fsanitize=$(LENIENT)'
endif
else
FLAGS     := $(FLAGS_$(BUILD))
endif

# Debian says how its nginx was configured; a module must be built alike.
DEBIAN_FLAGS = . $(NGINX_SRC)/conf_flags && set -- "$${NGX_CONF_FLAGS[@]}"

# A full tree has its main(); nginx itself is built beside the module.
FULL      := $(wildcard $(NGINX_SRC)/src/core/nginx.c)

CONFIGURE := $(if $(wildcard $(NGINX_SRC)/configure),configure,auto/configure)

SOURCES   := $(wildcard config src/*/*.[ch] src/*.c) $(OPTIONS) \
             $(if $(CHECKED),$(wildcard t/sanitize/planted/*))

.PHONY: all module nginx clean unit

all: module

module: $(MODULE)

# nginx's configure wants to stand in the source tree, and writes there; so
# every build has a tree of links.

$(TREE)/objs/Makefile: config Makefile $(wildcard src/*/*.c)
	@$(if $(CHECKED),$(if $(FULL),:,echo "BUILD=$(BUILD) needs nginx's own \
	source: run t/sanitize/source, or give NGINX_SRC" >&2; exit 1))
	@mkdir -p $(TREE)
	cp -rsf $(abspath $(NGINX_SRC))/. $(TREE)/ 2>/dev/null || true
	cd $(TREE) && bash -c 'set -e; \
	    if [ -f $(NGINX_SRC)/conf_flags ]; then $(DEBIAN_FLAGS); \
	    else set -- --with-compat --with-threads \
	        --with-http_ssl_module --with-http_v2_module \
	        --with-http_auth_request_module --with-http_realip_module \
	        --with-http_stub_status_module; fi; \
	    ./$(CONFIGURE) "$$@" $(FLAGS) \
	        --with-cc=$(CC) \
	        --with-cc-opt="$(CFLAGS_$(BUILD)) $(CFLAGS_nginx) $(CFLAGS)" \
	        --with-ld-opt="$(LDFLAGS_$(BUILD))" \
	        --add-dynamic-module=$(CURDIR) > configure.log \
	        || { tail -n 20 configure.log; exit 1; }'

$(MODULE): $(TREE)/objs/Makefile $(SOURCES)
	$(if $(OPTIONS),$(CC) $(CFLAGS_$(BUILD)) $(WARN) -c \
	    -o $(TREE)/objs/options.o $(OPTIONS))
	$(MAKE) -C $(TREE) -f objs/Makefile \
	    $(if $(FULL),build,modules) $(NGINX_MAKE) \
	    CFLAGS="`sed -n 's/^CFLAGS =//p' $(TREE)/objs/Makefile` $(WARN)"
	@echo built $(patsubst $(CURDIR)/%,%,$@)

unit:
	$(MAKE) -C t/unit CC=$(CC) BUILD=$(BUILD) test

clean:
	rm -rf build
