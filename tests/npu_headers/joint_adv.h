/* A stub of the other parts of AXERA's joint API. The runner uses none of them. */
#pragma once
#include "joint.h"
