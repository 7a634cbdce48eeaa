/* A stand-in of our own for the rest of AXERA's joint API, of which the runner uses nothing. */
#pragma once
#include "joint.h"
