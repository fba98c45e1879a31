import numpy as np, math
from numba import njit
from engine.kernels.op import *
from engine.kernels.op import Arrangement, flat, same, spec, floats
from engine.kernels.split import span

@njit(error_model="numpy")
def add_cpu(a,b,o,task,tasks):
    f,c=span(a.size,task,tasks)
    for k in range(c): o[f+k]=a[f+k]+b[f+k]
@njit(error_model="numpy")
def mul_cpu(a,b,o,task,tasks):
    n=b.size
    f,c=span(a.size,task,tasks)
    for k in range(c): o[f+k]=a[f+k]*b[(f+k)%n]
@njit(error_model="numpy")
def copy_cpu(a,o,task,tasks):
    f,c=span(a.size,task,tasks)
    for k in range(c): o[f+k]=a[f+k]
@njit(error_model="numpy")
def sum0_cpu(x,o,task,tasks):
    f,c=span(x.shape[1],task,tasks)
    for k in range(c): o[f+k]=0
    for i in range(x.shape[0]):
        for k in range(c): o[f+k]+=x[i,f+k]
@njit(error_model="numpy")
def ce_cpu(z,y,w,s,loss,d,task,tasks):
    n,c=z.shape; t=0.0
    for i in range(n):
        m=z[i,0]
        for j in range(c): m=max(m,z[i,j])
        q=0.0
        for j in range(c):
            e=math.exp(z[i,j]-m); d[i,j]=e; q+=e
        t+=w[i]*(math.log(q)+m-z[i,y[i]])
        for j in range(c): d[i,j]*=w[i]/q/n
        d[i,y[i]]-=w[i]/n
    loss[0]=t/n
@njit(error_model="numpy")
def correct_cpu(z,y,th,o,task,tasks):
    n,c=z.shape; k=0
    for i in range(n):
        b=0
        for j in range(c):
            if z[i,j]>z[i,b]: b=j
        k+=b==y[i]
    o[0]=k
@njit(error_model="numpy")
def adam_cpu(p,g,m,v,rate,counter,wd,b1,b2,eps,po,mo,vo,task,tasks):
    t=counter[1]+1
    c1=1-b1**t; c2=1-b2**t
    T=p.dtype.type
    lr=T(rate[0]/c1); k2=T(1/math.sqrt(c2)); B1=T(b1); C1=T(1-b1); B2=T(b2); C2=T(1-b2); E=T(eps)
    f,n=span(p.size,task,tasks)
    for k in range(n):
        i=f+k
        gi=g[i]
        mi=B1*m[i]+C1*gi; vi=B2*v[i]+C2*gi*gi
        mo[i]=mi; vo[i]=vi
        po[i]=p[i]-lr*mi/(math.sqrt(vi)*k2+E)
one=lambda i,o,a,t: Arrangement(tuple(s.shape for s in i),((o[0].size,),),())
def none(rng): return ()
OPS=(Op("adam",None,lambda p,g,m,v,r,c,**k:(spec(p),spec(p),spec(p)),adam_cpu,None,none,flat,attributes={"weight_decay":0.0,"beta1":.9,"beta2":.999,"epsilon":1e-8},updates={0:0,1:2,2:3}),
Op("add",np.add,lambda a,b:spec(a),add_cpu,None,none,flat,lambda g,n,d:(d,d)),
 Op("mul",np.multiply,lambda a,b:spec(a),mul_cpu,None,none,flat),
 Op("identity",np.copy,lambda a:spec(a),copy_cpu,None,none,flat,lambda g,n,d:(d,)),
 Op("reshape",None,lambda a,shape:Spec(tuple(shape),a.dtype),copy_cpu,None,none,lambda i,o,a,t:flat(i,o,{},t),lambda g,n,d:(g.add("reshape",d,shape=n.inputs[0].shape),),attributes={"shape":()},views={0:0}),
 Op("sum",None,lambda a,axis:Spec(a.shape[1:],a.dtype),sum0_cpu,None,none,one,attributes={"axis":0}),
 Op("cross_entropy",None,lambda z,y,w,label_smoothing:(Spec((),z.dtype),spec(z)),ce_cpu,None,none,
   lambda i,o,a,t: Arrangement(tuple(s.shape for s in i),((1,),o[1].shape),(0.0,)),lambda g,n,d,_:(n.outputs[1],None,None),attributes={"label_smoothing":0.0}),
 Op("correct_count",None,lambda z,y,threshold:Spec((),np.dtype("f8")),correct_cpu,None,none,lambda i,o,a,t: Arrangement(tuple(s.shape for s in i),((1,),),(0.0,)),attributes={"threshold":0.0}),
)
